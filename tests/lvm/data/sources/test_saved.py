"""Folders of Hugging Face's `save_to_disk` are read by its own library."""

import sys

import pytest

from lvm.data.sources import Document
from tests.support.reading import ROWS, documents, refusal

datasets = pytest.importorskip("datasets")
FULL = [{"source": "letters", "year": 1900} | row for row in ROWS]


def test_saved_dataset_gives_its_rows(tmp_path):
    datasets.Dataset.from_list(FULL).save_to_disk(tmp_path / "saved", num_shards=2)
    assert documents(tmp_path / "saved") == [Document("first", "letters", ROWS[0]["text"]), Document("second", "almanac", ROWS[1]["text"])]


def test_all_splits_of_a_saved_dataset_are_read(tmp_path):
    splits = {"train": ROWS[:1], "test": [{"doc_id": "third", "text": "One. Two."}]}
    datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(tmp_path / "saved")
    assert [(one.doc_id, one.source) for one in documents(tmp_path / "saved")] == [("first", "saved"), ("third", "saved")]
    assert [one.doc_id for one in documents(tmp_path / "saved", columns={"doc_id": "#"})] == ["train#1", "test#1"]


def test_saved_lists_are_chunks(tmp_path):
    datasets.Dataset.from_list([{"doc_id": "x", "text": ["One.", "Two."]}]).save_to_disk(tmp_path / "saved")
    (document,) = documents(tmp_path / "saved", chunked=True)
    assert document.pieces == ("One.", "Two.")


def test_saved_dataset_without_the_columns_or_damaged_is_refused(tmp_path):
    datasets.Dataset.from_list([{"id": 1, "content": "Sound."}]).save_to_disk(tmp_path / "saved")
    assert "field 'doc_id' is missing; there are 'content', 'id'" in refusal(tmp_path / "saved")
    assert documents(tmp_path / "saved", columns={"doc_id": "id", "text": "content"})[0].doc_id == "1"
    (file,) = (tmp_path / "saved").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:40])
    assert "is not a readable folder of save_to_disk" in refusal(tmp_path / "saved")


def test_missing_extra_is_one_sentence(tmp_path, monkeypatch):
    datasets.Dataset.from_list(ROWS[:1]).save_to_disk(tmp_path / "saved")
    monkeypatch.setattr("lvm.errors.find_spec", lambda name: None if name == "datasets" else sys)
    assert "needs datasets: pip install 'lvm-pipeline[datasets]'" in refusal(tmp_path / "saved")
