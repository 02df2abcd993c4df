"""Documents on which the whole job ends well, and soon."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvm.config import GATES
from tests.support import passing_baselines

REPOSITORY = Path(__file__).parents[2]

DOCUMENTS, PARAGRAPHS = 40, 14
"""As few as all three architectures pass their gates on, but for `baselines`."""


@pytest.fixture(scope="package", autouse=True)
def baselines_pass() -> Iterator[None]:
    """The gate `baselines` passes in this process and in those that the tests start; see `tests.support.passing_baselines`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GATES._entries, "baselines", passing_baselines.baselines)
        patch.setenv("LVM_PLUGINS", "tests.support.passing_baselines")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])))
        yield


@pytest.fixture(scope="module")
def few_documents(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("few") / "addresses.jsonl"
    documents = [json.loads(line) for line in small_corpus.read_text(encoding="utf-8").splitlines()][:DOCUMENTS]
    short = [{"doc_id": found["doc_id"], "text": "\n".join(found["text"].splitlines()[:PARAGRAPHS])} for found in documents]
    path.write_text("".join(json.dumps(line) + "\n" for line in short), encoding="utf-8")
    return path
