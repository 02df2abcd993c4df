"""A corpus that grew: vectors of known texts come from datasets that are there, and all else is as if it had been made from nothing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lvm.config import SplitConfig
from lvm.data import reuse as module
from lvm.data.dataset import open_dataset
from lvm.data.extract import Extracted, extract
from lvm.data.manifest import read_manifest
from lvm.data.reuse import NEW, find_vectors, reusable_datasets
from lvm.errors import InputError
from tests.support.corpora import QuickEncoder, WatchedEncoder, shard_digests, write_lines

NIGHTFALL = "Night fell over the harbour.\n\nThe lamps were lit one after the other."
WIDE = SplitConfig(val=0.3, test=0.3)


@pytest.fixture()
def grown(rows, tmp_path) -> str:
    """The openings with one more document, whose id sorts into their middle."""
    new = {"doc_id": rows[2]["doc_id"] + " (new)", "text": NIGHTFALL}
    return write_lines(tmp_path / "openings.jsonl", [new, *rows])


def without_vectors(path: Path) -> pa.Table:
    """Every column of a dataset's shards but the vectors."""
    columns = ["doc_id", "chunk_index", "source", "split", "text", "n_tokens"]
    return pa.concat_tables([pq.read_table(path / file, columns=columns).replace_schema_metadata() for file in shard_digests(path)])


def many(count: int, changed: str = "") -> list[dict[str, str]]:
    """Documents of two or more chunks, and none like another."""
    return [
        {"doc_id": f"{i:03d}", "text": "\n\n".join(f"Line {j} of report {i}{changed if i == 1 else ''}." for j in range(2 + i % 3))}
        for i in range(count)
    ]


# A grown corpus


def test_one_more_document_encodes_one_more_document(whole, grown, encoder, small_shards, tmp_path):
    watched, calls = WatchedEncoder(encoder), []
    done = extract([grown], tmp_path / "out", watched, progress=lambda n, total: calls.append((n, total)), reuse=[whole])
    known = open_dataset(whole).n_rows
    assert (watched.texts, done.encoded_chunks, done.reused_chunks) == (2, 2, known)
    assert done.manifest.reused == read_manifest(tmp_path / "out").reused == {read_manifest(whole).digest: known}
    assert done.remarks[:1] == [f"encoded 2 chunks, reused {known} of {read_manifest(whole).digest[:12]}"]
    assert calls == sorted(calls) and calls[-1] == (known + 2, known + 2)


def test_grown_dataset_is_the_one_that_is_made_from_nothing(whole, grown, encoder, small_shards, tmp_path):
    for name, known in (("grown", [whole]), ("anew", [])):
        extract([grown], tmp_path / name, encoder, splits=WIDE, reuse=known)
    found, expected = open_dataset(tmp_path / "grown"), open_dataset(tmp_path / "anew")
    assert found.manifest.key == expected.manifest.key
    assert without_vectors(found.path).equals(without_vectors(expected.path))
    assert (found.vectors * expected.vectors).sum(1).min() >= 0.9998, "batches are padded otherwise, texts are the same"


def test_reuse_is_provenance_and_changes_no_key(whole, source, encoder, small_shards, tmp_path):
    done = extract([source], tmp_path, WatchedEncoder(encoder), reuse=[whole])
    assert done.encoded_chunks == 0
    assert done.manifest.key == read_manifest(whole).key
    assert np.array_equal(open_dataset(tmp_path).vectors, open_dataset(whole).vectors)
    assert read_manifest(whole).reused == {}


def test_changed_document_is_encoded_where_it_changed_alone(encoder, small_shards, tmp_path):
    extract([write_lines(tmp_path / "a.jsonl", many(30))], tmp_path / "old", QuickEncoder(encoder))
    watched = QuickEncoder(encoder)
    extract([write_lines(tmp_path / "b.jsonl", many(30, "!")[1:])], tmp_path / "new", watched, reuse=[tmp_path / "old"])
    extract([write_lines(tmp_path / "b.jsonl", many(30, "!")[1:])], tmp_path / "anew", QuickEncoder(encoder))
    assert watched.texts == 3, "the lines of report 1"
    assert np.array_equal(open_dataset(tmp_path / "new").vectors, open_dataset(tmp_path / "anew").vectors)


def test_interrupted_run_goes_on_and_counts_what_was_reused_before(encoder, small_shards, tmp_path):
    extract([write_lines(tmp_path / "a.jsonl", many(30))], tmp_path / "old", QuickEncoder(encoder))
    grown = write_lines(
        tmp_path / "b.jsonl", [{"doc_id": f"{i:03d}+", "text": f"New {i}.\n\nAnd so on, {i}."} for i in range(30)] + many(30)
    )
    with pytest.raises(KeyboardInterrupt):
        extract([grown], tmp_path / "new", QuickEncoder(encoder, interrupted_at=3), reuse=[tmp_path / "old"])
    finished = len(list((tmp_path / "new").glob("*.parquet")))
    watched = QuickEncoder(encoder)
    done = extract([grown], tmp_path / "new", watched, reuse=[tmp_path / "old"])
    assert finished == 2 and 0 < watched.texts < 60
    assert sum(done.manifest.chunks.values()) == done.reused_chunks + 60
    extract([grown], tmp_path / "anew", QuickEncoder(encoder))
    assert np.array_equal(open_dataset(tmp_path / "new").vectors, open_dataset(tmp_path / "anew").vectors)


# Several datasets


@pytest.fixture()
def two(encoder, tmp_path) -> tuple[Path, Path]:
    """Two datasets that share the reports 10 to 19."""
    for name, part in (("a", slice(0, 20)), ("b", slice(10, 30))):
        extract([write_lines(tmp_path / f"{name}.jsonl", many(30)[part])], tmp_path / "data" / name, QuickEncoder(encoder))
    return tmp_path / "data" / "a", tmp_path / "data" / "b"


def test_each_text_is_taken_from_the_first_dataset_that_holds_it(two, encoder, small_shards, tmp_path):
    watched = QuickEncoder(encoder)
    done = extract([write_lines(tmp_path / "all.jsonl", many(31))], tmp_path / "out", watched, reuse=two[::-1])
    a, b = (read_manifest(path) for path in two)
    assert watched.texts == 2
    assert done.manifest.reused == {b.digest: sum(b.chunks.values()), a.digest: sum(2 + i % 3 for i in range(10))}
    extract([write_lines(tmp_path / "all.jsonl", many(31))], tmp_path / "anew", QuickEncoder(encoder))
    assert np.array_equal(open_dataset(tmp_path / "out").vectors, open_dataset(tmp_path / "anew").vectors)


def test_datasets_are_looked_at_until_every_text_is_found_and_no_longer(two, encoder):
    def offered() -> Iterator[Path]:
        yield two[1]
        raise AssertionError("everything was found")

    found = find_vectors(without_vectors(two[1]), offered(), QuickEncoder(encoder), SplitConfig())
    assert NEW not in found.dataset
    vectors = np.zeros((5, 384), np.float32)
    missing, _ = found.read(7, vectors)
    assert not len(missing) and np.array_equal(vectors, open_dataset(two[1]).vectors[7:12])


def test_texts_are_read_in_batches(two, encoder, monkeypatch):
    monkeypatch.setattr(module, "BATCH_ROWS", 4)
    table = without_vectors(two[0])
    found = find_vectors(table, [two[1], two[0]], QuickEncoder(encoder), SplitConfig())
    vectors = np.zeros((len(table), 384), np.float32)
    assert not len(found.read(0, vectors)[0]) and np.array_equal(vectors, open_dataset(two[0]).vectors)


# Splits


def test_document_that_changes_its_split_with_a_near_duplicate_is_named(encoder, tmp_path):
    old = many(40)
    extract([write_lines(tmp_path / "a.jsonl", old)], tmp_path / "old", QuickEncoder(encoder), splits=WIDE)
    before = open_dataset(tmp_path / "old")
    split = dict(zip(before.doc_ids, before.doc_splits, strict=True))
    moved: list[Extracted] = []
    for i in range(5):  # a group has the split of its first id: about one of two copies with another first id changes it
        copy = {"doc_id": f"!copy {i}", "text": old[8]["text"] + "\n\nThe printer added this line."}
        grown = write_lines(tmp_path / "b.jsonl", [*old, copy])
        moved.append(extract([grown], tmp_path / str(i), QuickEncoder(encoder), splits=WIDE, reuse=[tmp_path / "old"]))
    for done in moved:
        after = open_dataset(done.path)
        changed = [doc_id for doc_id, now in zip(after.doc_ids, after.doc_splits, strict=True) if split.get(doc_id, now) != now]
        assert done.moved == changed and changed in ([], ["008"])
        assert len(done.remarks) == 1 + len(changed)
    assert {len(done.moved) for done in moved} == {0, 1}
    (words,) = {done.remarks[1] for done in moved if done.moved}
    assert words.startswith("1 known documents changed their split, since ") and words.endswith(": 008")


def test_other_split_settings_and_other_documents_of_the_same_id_are_no_change(encoder, tmp_path):
    extract([write_lines(tmp_path / "a.jsonl", many(30))], tmp_path / "old", QuickEncoder(encoder))
    other = [row | {"text": f"Here begins another text, {row['doc_id']}.\n\n{row['text']}"} for row in many(30)]
    salt = SplitConfig(salt="2")
    salted = extract([str(tmp_path / "a.jsonl")], tmp_path / "salted", QuickEncoder(encoder), splits=salt, reuse=[tmp_path / "old"])
    assert salted.moved == [] and salted.encoded_chunks == 0
    done = extract([write_lines(tmp_path / "b.jsonl", other)], tmp_path / "other", QuickEncoder(encoder), reuse=[tmp_path / "old"])
    assert done.moved == [] and done.encoded_chunks == 30


# What is not reused


@pytest.mark.parametrize("damage", ["altered", "missing", "manifest"])
def test_damaged_dataset_is_refused_before_any_work_and_left_out_where_it_was_not_asked_for(two, encoder, tmp_path, damage):
    file = two[0] / ("manifest.json" if damage == "manifest" else "chunks-00000.parquet")
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.unlink() if damage == "missing" else file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{two[0]}"):
        extract([str(tmp_path / "nowhere.jsonl")], tmp_path / "out", QuickEncoder(encoder), reuse=two)
    told: list[str] = []
    assert list(reusable_datasets(tmp_path / "data", encoder, told.append)) == [two[1]]
    assert len(told) == 1 and str(two[0]) in told[0]


def test_vectors_of_another_precision_are_not_reused(two, encoder, tmp_path):
    halved = QuickEncoder(encoder)
    halved.dtype = "float16"
    with pytest.raises(InputError, match=rf"its encoder's floating-point type is {encoder.dtype}, this run's is float16$"):
        extract([str(tmp_path / "a.jsonl")], tmp_path / "out", halved, reuse=two[:1])
    told: list[str] = []
    assert not list(reusable_datasets(tmp_path / "data", halved, told.append)) and len(told) == 2


def test_vectors_of_another_encoder_are_refused_and_otherwise_not_mentioned(two, encoder, tmp_path):
    other = QuickEncoder(encoder)
    other.recipe = encoder.recipe.model_copy(update={"pooling": "cls"})
    with pytest.raises(InputError, match=rf"^dataset {two[0]} cannot be reused: encoder recipe .* pooling: mean against cls"):
        extract([str(tmp_path / "a.jsonl")], tmp_path / "out", other, reuse=two[:1])
    told: list[str] = []
    assert not list(reusable_datasets(tmp_path / "data", other, told.append)) and not told


def test_vectors_that_cannot_be_used_are_computed_anew(two, encoder, small_shards, tmp_path, monkeypatch):
    found = find_vectors(without_vectors(two[0]), [two[0]], QuickEncoder(encoder), SplitConfig())
    read = module._read_rows

    def spoilt(path, manifest, rows):
        return np.where((rows == 4)[:, None], np.nan, read(path, manifest, rows))

    monkeypatch.setattr(module, "_read_rows", spoilt)
    missing, taken = found.read(2, np.zeros((6, 384), np.float32))
    assert missing.tolist() == [2] and taken == {read_manifest(two[0]).digest: 5}


def test_newest_dataset_is_offered_first_and_what_is_unfinished_not_at_all(two, encoder, tmp_path):
    shutil.copytree(two[0], tmp_path / "data" / "c")
    (tmp_path / "data" / "c" / "manifest.json").unlink()
    (two[0] / "manifest.json").touch()
    assert list(reusable_datasets(tmp_path / "data", encoder, pytest.fail)) == list(two)
    assert json.loads((two[0] / "manifest.json").read_text())["reused"] == {}
