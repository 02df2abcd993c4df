"""The whole flow on vectors that were imported without texts: a champion as of documents, and a sentence in the place of its texts."""

import numpy as np
import pytest
import torch

from flows.retrain_all import retrain_all
from lvm.data.importer.run import import_vectors
from lvm.data.manifest import read_manifest
from lvm.models.checkpoint import load_checkpoint
from tests.support import own_vectors as own
from tests.support.flow_runs import logged, parents

pytestmark = pytest.mark.slow


def test_a_champion_is_made_of_imported_vectors_and_nothing_is_decoded(dataset, flow_environment, tmp_path, capsys):
    columns = {
        "doc_id": dataset.table.column("doc_id"),
        "position": dataset.table.column("chunk_index"),
        "vector": np.array(dataset.vectors),
    }
    path, root = own.parquet(tmp_path / "vectors.parquet", columns), tmp_path / "root"
    import_vectors([path], dataset.manifest.recipe, root / "data" / "mine")
    promotion = retrain_all(
        architectures=["lstm"], settings=["model.width=128", "epochs=8"], device="cpu", root=root, dataset=root / "data" / "mine"
    )
    assert promotion.promoted
    champion = load_checkpoint(root / "models" / "champion", torch.device("cpu"))
    assert champion.config.dataset_digest == read_manifest(root / "data" / "mine").digest
    assert all(gate["passed"] for gate in logged(root, parents(root)[0], "gates/data.json")["gates"])
    assert "holds vectors without texts" in capsys.readouterr().out
    assert [folder.name for folder in (root / "data").iterdir() if (folder / "manifest.json").exists()] == ["mine"]
