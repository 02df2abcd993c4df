"""The competitor with batching: LitServe around the same model, which computes in a process of its own.

python -m bench.serving.lit --model models/champion --port 8802
"""

import argparse
from pathlib import Path
from typing import Any

import litserve as ls
import torch

from lvm.models.checkpoint import load_checkpoint


class LitNextChunk(ls.LitAPI):
    """LitServe's hooks; a batch has one context of each request."""

    def __init__(self, model: Path, rows: int) -> None:
        super().__init__(max_batch_size=rows, batch_timeout=0.001)
        self._path = model

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        torch.set_num_threads(1)
        self._model = load_checkpoint(self._path, torch.device(device)).model

    def decode_request(self, request: dict[str, Any]) -> torch.Tensor:
        """The only context of a request: [T, D]."""
        return torch.tensor(request["context_vectors"][0])

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """The contexts of several requests: [B, T, D]."""
        return torch.stack(inputs)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Predictions: [B, D]."""
        with torch.inference_mode():
            return self._model(x if x.ndim == 3 else x[None], return_both=True)[0]

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """One prediction for each request."""
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        """As JSON values."""
        return {"vectors": [output.tolist()]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    server = ls.LitServer(LitNextChunk(options.model, 64), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")
