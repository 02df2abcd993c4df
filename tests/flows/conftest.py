"""Documents on which the whole job ends well, and soon."""

import json
from pathlib import Path

import pytest

DOCUMENTS, PARAGRAPHS = 40, 14
"""As few as all three architectures pass their gates on."""


@pytest.fixture(scope="module")
def few_documents(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("few") / "addresses.jsonl"
    documents = [json.loads(line) for line in small_corpus.read_text(encoding="utf-8").splitlines()][:DOCUMENTS]
    short = [{"doc_id": found["doc_id"], "text": "\n".join(found["text"].splitlines()[:PARAGRAPHS])} for found in documents]
    path.write_text("".join(json.dumps(line) + "\n" for line in short), encoding="utf-8")
    return path
