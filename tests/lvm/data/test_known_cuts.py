"""Documents that a dataset holds are not cut again, and their chunks are those that cutting would give."""

import json
from pathlib import Path

import pytest

from lvm.config import ChunkerConfig
from lvm.data import known_cuts as module
from lvm.data.dataset import open_dataset
from lvm.data.extract import extract
from tests.support.corpora import Counted, QuickEncoder, write_lines


@pytest.fixture()
def old(rows, encoder, tmp_path) -> Path:
    """The openings, and a document of one chunk, as a dataset."""
    short = {"doc_id": "short", "text": "The treasury is full."}
    extract([write_lines(tmp_path / "old.jsonl", [*rows, short])], tmp_path / "old", QuickEncoder(encoder))
    return tmp_path / "old"


@pytest.fixture()
def grown(rows, tmp_path) -> str:
    """The openings without the first; the second has a word more, and one is new."""
    changed = rows[1] | {"text": "Indeed. " + rows[1]["text"]}
    new = {"doc_id": "new", "text": "Night fell over the harbour.\n\nThe lamps were lit."}
    return write_lines(tmp_path / "grown.jsonl", [new, changed, *rows[2:]])


def cut_documents(monkeypatch: pytest.MonkeyPatch, source: str, *args, **kwargs) -> set[str]:
    """The ids of the documents of `source` that an extraction cuts, each once."""
    texts = {row["text"]: row["doc_id"] for row in map(json.loads, Path(source).read_text(encoding="utf-8").splitlines())}
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        extract([source], *args, **kwargs)
    assert set(counted.cuts.values()) <= {1}
    return {texts[text] for text in counted.cuts}


def test_only_new_and_changed_documents_are_cut_and_the_rows_are_the_same(old, grown, rows, encoder, tmp_path, monkeypatch):
    assert cut_documents(monkeypatch, grown, tmp_path / "out", QuickEncoder(encoder), reuse=[old]) == {"new", rows[1]["doc_id"]}
    extract([grown], tmp_path / "anew", QuickEncoder(encoder))
    found, expected = open_dataset(tmp_path / "out"), open_dataset(tmp_path / "anew")
    assert found.table.equals(expected.table) and found.manifest.skipped == expected.manifest.skipped


def test_known_cuts_are_handed_on_from_dataset_to_dataset(old, grown, rows, encoder, tmp_path, monkeypatch):
    extract([grown], tmp_path / "second", QuickEncoder(encoder), reuse=[old])
    third = [tmp_path / "second", old]
    assert not cut_documents(monkeypatch, grown, tmp_path / "third", QuickEncoder(encoder), reuse=third)
    every = write_lines(tmp_path / "every.jsonl", [*rows, json.loads(Path(grown).read_text(encoding="utf-8").splitlines()[0])])
    assert not cut_documents(monkeypatch, every, tmp_path / "fourth", QuickEncoder(encoder), reuse=third)


def test_other_rules_cut_every_document_anew(old, rows, source, encoder, tmp_path, monkeypatch):
    everything = {row["doc_id"] for row in rows}
    other = ChunkerConfig(max_tokens=32)
    assert cut_documents(monkeypatch, source, tmp_path / "budget", QuickEncoder(encoder), other, reuse=[old]) == everything
    monkeypatch.setattr(module, "version", lambda library: "another")
    assert cut_documents(monkeypatch, source, tmp_path / "library", QuickEncoder(encoder), reuse=[old]) == everything


@pytest.mark.parametrize("damage", ["deleted", "altered"])
def test_without_the_derived_file_documents_are_cut_again(old, source, encoder, tmp_path, monkeypatch, damage):
    (file,) = (old / "derived").glob("*cuts.parquet")
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.unlink() if damage == "deleted" else file.write_bytes(content)
    assert len(cut_documents(monkeypatch, source, tmp_path / "out", QuickEncoder(encoder), reuse=[old])) == 6


def test_what_an_interrupted_run_staged_is_not_noted_as_cut_by_these_rules(source, encoder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract([source], tmp_path, QuickEncoder(encoder, interrupted_at=1))
    extract([source], tmp_path, QuickEncoder(encoder))
    assert not list((tmp_path / "derived").glob("*cuts.parquet"))


def test_documents_are_read_whole_where_batches_divide_them(old, source, encoder, small_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_ROWS", 3)
    extract([source], tmp_path / "out", QuickEncoder(encoder), reuse=[old])
    extract([source], tmp_path / "anew", QuickEncoder(encoder))
    assert open_dataset(tmp_path / "out").table.equals(open_dataset(tmp_path / "anew").table)
