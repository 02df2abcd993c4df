"""A server from PyPI with OpenAI's endpoint for embeddings, LitServe, in front of a sentence-transformers folder.

python -m tests.support.embedding_server FOLDER PORT
"""

import sys
from typing import Any

import litserve as ls
from litserve.specs import OpenAIEmbeddingSpec
from sentence_transformers import SentenceTransformer


class Embeddings(ls.LitAPI):
    """The library's own `encode`."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.model = SentenceTransformer(sys.argv[1], device="cpu")

    def predict(self, texts: list[str]) -> Any:
        """Vectors, float32 [n, dim]."""
        return self.model.encode(texts, show_progress_bar=False)


if __name__ == "__main__":
    server = ls.LitServer(Embeddings(spec=OpenAIEmbeddingSpec()), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
