"""A night reads each source once and cuts each offered document once; it extracts those that the champion has not seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prefect.logging import disable_run_logger

import tasks.nightly.documents
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder
from lvm.errors import InputError
from tasks.nightly.champion import Champion
from tasks.nightly.documents import NightDocuments, gather_documents
from tasks.workspace import Workspace
from tests.support.corpora import Counted
from tests.support.in_memory import in_memory
from tests.support.nights import addresses, write_documents

UNSEEN = 3


@pytest.fixture()
def gathered(dataset: Dataset, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The documents of a night; nothing is logged to MLflow."""
    champion = Champion(path=tmp_path, arch="lstm", version="1", dataset=dataset.path, recorded={})
    monkeypatch.setattr(tasks.nightly.documents, "load_encoder", lambda name, device: encoder)
    monkeypatch.setattr(tasks.nightly.documents, "log_dataset", lambda run_id, manifest, context: None)

    def night(documents: dict[str, str], max_docs: int | None = None) -> NightDocuments:
        source = str(write_documents(documents, tmp_path / "arrived.jsonl"))
        with disable_run_logger():
            return gather_documents.fn(Workspace(root=tmp_path / "root"), champion, [source], max_docs, "2026-01-01", "run", "cpu")

    return night


def known(dataset: Dataset) -> str:
    """The text of a document that the champion was trained on."""
    return "\n".join(dataset.texts(np.arange(dataset.starts[0], dataset.starts[1])))


def test_night_reads_once_cuts_once_and_extracts_the_unseen_documents(gathered, dataset, monkeypatch):
    offered = addresses(UNSEEN) | {"old": known(dataset)}
    counted = Counted(monkeypatch)
    documents = gathered(offered)
    assert list(counted.reads.values()) == [1] and counted.cuts == dict.fromkeys(offered.values(), 1)
    assert open_dataset(documents.dataset).doc_ids == sorted(set(offered) - {"old"})
    assert documents.known == 1
    assert (
        documents.origin.startswith(f"{UNSEEN} of {UNSEEN} new documents of ") and "1 that the champion's dataset holds" in documents.origin
    )


def test_sample_of_a_night_is_extracted_alone(gathered):
    offered = addresses(UNSEEN)
    documents = gathered(offered, max_docs=1)
    assert len(open_dataset(documents.dataset).doc_ids) == 1
    assert f"1 of {UNSEEN} new documents" in documents.origin


def test_night_without_a_new_document_is_refused(gathered, dataset):
    with pytest.raises(InputError, match=r"all 1 documents of .* are in the champion's dataset, so none is new"):
        gathered({"old": known(dataset)})


def test_a_champion_of_imported_vectors_is_told_apart_since_how_its_documents_were_cut_is_not_known(dataset, gathered, tmp_path):
    imported = in_memory([("a", "train", ["One.", "Two."])], tmp_path / "data")
    imported = replace(imported, manifest=imported.manifest.model_copy(update={"chunker": None}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.nightly.documents, "open_dataset", lambda path: imported)
        with pytest.raises(InputError, match=r"was imported, so how its documents were cut is not known .*'lvm import'"):
            gathered(addresses(UNSEEN))
