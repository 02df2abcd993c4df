import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lvm import __version__
from lvm.config import ChunkerConfig, SplitConfig
from lvm.data import extract as module
from lvm.data.dataset import open_dataset, read_manifest, schema
from lvm.data.extract import dataset_key, extract, scan_sources
from lvm.errors import InputError

DOCUMENTS = 6
PARAGRAPHS = 4
ONE = "The treasury is full."
TWO = "Commerce grows in every port. The harvest was good."


class Watched:
    """The real encoder, which counts its texts, can spoil its vectors, and can die on a call."""

    def __init__(self, encoder, spoil=lambda vectors: vectors, dies_on_call=None):
        self.recipe, self.tokenizer, self.dtype, self.group = encoder.recipe, encoder.tokenizer, encoder.dtype, encoder.group
        self.encoder, self.spoil, self.dies_on_call = encoder, spoil, dies_on_call
        self.calls = self.texts = 0

    def encode(self, texts):
        self.calls += 1
        if self.calls == self.dies_on_call:
            raise KeyboardInterrupt
        self.texts += len(texts)
        return self.spoil(self.encoder.encode(texts))


def write_lines(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def shards(out: Path) -> dict[str, str]:
    return {shard.file: shard.sha256 for shard in read_manifest(out).shards}


def refusal(sources, out: Path, encoder, *args, **kwargs) -> str:
    """The sentence of the refusal; what was left at `out` is no dataset."""
    with pytest.raises(InputError) as caught:
        extract(sources, out, encoder, *args, **kwargs)
    assert not (out / "manifest.json").exists()
    with pytest.raises(InputError):
        open_dataset(out)
    return str(caught.value)


@pytest.fixture(scope="module")
def rows(small_corpus) -> list[dict]:
    """The openings of a few addresses, by doc_id."""
    found = [json.loads(line) for line in small_corpus.read_text(encoding="utf-8").splitlines()[:DOCUMENTS]]
    return [row | {"text": "\n".join(row["text"].splitlines()[:PARAGRAPHS])} for row in found]


@pytest.fixture(scope="module")
def source(rows, tmp_path_factory) -> str:
    return write_lines(tmp_path_factory.mktemp("openings") / "openings.jsonl", rows[::-1])


@pytest.fixture()
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 16)
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 8)


@pytest.fixture(scope="module")
def whole(source, encoder, tmp_path_factory):
    """The openings as a dataset of several shards, extracted in one go; read-only for tests."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_ROWS", 16)
        patch.setattr(module, "ROW_GROUP_ROWS", 8)
        extract([source], out, encoder)
    assert len(shards(out)) > 3
    return out


# What is written


def test_rows_hold_every_document_in_order_with_its_text_and_token_counts(whole, rows, encoder):
    table = open_dataset(whole).table
    keys = list(zip(table.column("doc_id").to_pylist(), table.column("chunk_index").to_pylist(), strict=True))
    assert keys == sorted(set(keys))
    for row in rows:
        texts = [t for (doc_id, _), t in zip(keys, table.column("text").to_pylist(), strict=True) if doc_id == row["doc_id"]]
        assert "".join("".join(texts).split()) == "".join(row["text"].split())
    lengths = [len(encoder.tokenizer.encode(t, add_special_tokens=False)) for t in table.column("text").to_pylist()]
    assert table.column("n_tokens").to_pylist() == lengths
    assert set(table.column("source").to_pylist()) == {"openings"}


def test_stored_vectors_are_those_of_their_texts(whole, encoder):
    dataset = open_dataset(whole)
    again = encoder.encode(dataset.texts(np.arange(dataset.n_rows)))
    cosines = (again * dataset.vectors).sum(1) / np.linalg.norm(again, axis=1) / np.linalg.norm(dataset.vectors, axis=1)
    assert cosines.min() >= 0.99
    stored = np.concatenate([np.stack(pq.read_table(whole / file).column("embedding").to_numpy()) for file in shards(whole)])
    assert np.array_equal(stored, dataset.vectors)


def test_vector_column_is_plain_and_uncompressed_in_every_row_group(whole):
    for file in shards(whole):
        metadata = pq.read_metadata(whole / file)
        for group in range(metadata.num_row_groups):
            columns = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
            (vectors,) = [c for c in columns if c.path_in_schema.startswith("embedding")]
            assert vectors.compression == "UNCOMPRESSED"
            assert not vectors.has_dictionary_page and not any("DICTIONARY" in name for name in vectors.encodings)
            assert {c.compression for c in columns if c is not vectors} == {"ZSTD"}
    assert pq.read_metadata(whole / "chunks-00000.parquet").num_row_groups == 2


def test_every_shard_has_the_contracts_columns_and_says_what_it_is(whole, encoder):
    manifest = read_manifest(whole)
    for shard in manifest.shards:
        found = pq.read_schema(whole / shard.file)
        assert found.equals(schema(384))
        about = {k.decode(): v.decode() for k, v in found.metadata.items()}
        assert about["lvm.schema_version"] == "1" and about["lvm.code_version"] == __version__
        assert about["lvm.key"] == manifest.key and about["lvm.source_digest"] == manifest.source_digest
        assert json.loads(about["lvm.chunker"]) == manifest.chunker.model_dump()
        assert json.loads(about["lvm.recipe"]) | {"name": "minilm"} == encoder.recipe.model_dump()


def test_manifest_counts_what_is_there(whole, rows):
    manifest, dataset = read_manifest(whole), open_dataset(whole)
    assert sum(manifest.documents.values()) == len(rows) == len(dataset.doc_ids)
    assert sum(manifest.chunks.values()) == dataset.n_rows == sum(shard.rows for shard in manifest.shards)
    assert {split: len(dataset.docs(split)) for split in manifest.documents} == manifest.documents
    assert {split: len(dataset.rows(split)) for split in manifest.chunks} == manifest.chunks
    assert manifest.sources == ["openings"] and manifest.encoder_dtype in ("float32", "bfloat16")
    assert {file.name for file in whole.iterdir()} - {"derived"} == {"manifest.json", *shards(whole)}


def test_progress_rises_to_the_number_of_chunks(source, encoder, small_shards, tmp_path):
    calls = []
    done = extract([source], tmp_path, encoder, progress=lambda n, total: calls.append((n, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (done.encoded_chunks, done.encoded_chunks)
    assert {total for _, total in calls} == {done.encoded_chunks}


# Again, interrupted, damaged


def test_repeated_extraction_encodes_nothing(whole, rows, encoder, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    reordered = write_lines(tmp_path / "reordered.jsonl", rows)
    watched = Watched(encoder)
    again = extract([reordered], tmp_path / "out", watched)
    assert (again.reused, again.encoded_chunks, watched.texts) == (True, 0, 0)
    assert again.manifest == read_manifest(whole)


@pytest.mark.parametrize("call", [1, 3])
def test_interrupted_extraction_goes_on_where_it_stopped(whole, source, encoder, small_shards, tmp_path, call):
    with pytest.raises(KeyboardInterrupt):
        extract([source], tmp_path, Watched(encoder, dies_on_call=call))
    with pytest.raises(InputError, match=r"no manifest\.json"):
        open_dataset(tmp_path)
    watched = Watched(encoder)
    done = extract([source], tmp_path, watched)
    total = sum(read_manifest(whole).chunks.values())
    assert not done.reused
    assert done.encoded_chunks == watched.texts == total - (call - 1) * 16
    assert shards(tmp_path) == shards(whole)
    assert done.manifest.digest == read_manifest(whole).digest


def test_documents_that_changed_after_an_interruption_are_not_mixed_with_the_old(rows, source, encoder, small_shards, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract([source], tmp_path / "out", Watched(encoder, dies_on_call=4))
    changed = write_lines(tmp_path / "openings.jsonl", [rows[0] | {"text": "New words. " + rows[0]["text"]}, *rows[1:3]])
    extract([changed], tmp_path / "out", encoder)
    extract([changed], tmp_path / "fresh", encoder)
    assert shards(tmp_path / "out") == shards(tmp_path / "fresh")
    assert "New words." in open_dataset(tmp_path / "out").texts(np.arange(16))


@pytest.mark.parametrize("content", [b"PAR1", b"not Parquet at all"])
def test_shard_that_was_damaged_after_an_interruption_is_written_anew(whole, source, encoder, small_shards, tmp_path, content):
    with pytest.raises(KeyboardInterrupt):
        extract([source], tmp_path, Watched(encoder, dies_on_call=3))
    (tmp_path / "chunks-00001.parquet").write_bytes(content)
    extract([source], tmp_path, encoder)
    assert shards(tmp_path) == shards(whole)


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_extracting_again_repairs_a_damaged_shard_and_only_that(whole, source, encoder, small_shards, tmp_path, damage):
    out = tmp_path / "out"
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("derived"))
    file = out / "chunks-00001.parquet"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.unlink() if damage == "missing" else file.write_bytes(content[:-50] if damage == "truncated" else content)
    with pytest.raises(InputError, match=r"chunks-00001\.parquet is .* extract'? again"):
        open_dataset(out)
    done = extract([source], out, encoder)
    assert (done.reused, done.encoded_chunks) == (False, 16)
    assert shards(out) == shards(whole)
    assert open_dataset(out).n_rows == open_dataset(whole).n_rows


def test_folder_that_holds_another_dataset_is_refused_and_left_alone(whole, source, encoder):
    before = {file: (whole / file).read_bytes() for file in ["manifest.json", *shards(whole)]}
    for kwargs in ({"max_docs": 3}, {"chunker": ChunkerConfig(max_tokens=32)}, {"splits": SplitConfig(val=0.2)}):
        watched = Watched(encoder)
        with pytest.raises(InputError, match="holds another dataset"):
            extract([source], whole, watched, **kwargs)
        assert watched.texts == 0
    assert {file: (whole / file).read_bytes() for file in before} == before


def test_key_changes_with_documents_chunker_splits_and_encoder():
    base = {"source_digest": "a", "chunker": ChunkerConfig(), "splits": SplitConfig(), "recipe_id": "r"}
    others = [{"source_digest": "b"}, {"chunker": ChunkerConfig(max_tokens=32)}, {"splits": SplitConfig(test=0.2)}, {"recipe_id": "s"}]
    keys = {dataset_key(**base), *(dataset_key(**base | other) for other in others)}
    assert len(keys) == 5
    assert dataset_key(**base) in keys


# Documents left out


def test_unusable_documents_are_left_out_counted_and_listed(rows, encoder, tmp_path):
    records = [
        *({"doc_id": row["doc_id"], "text": row["text"], "year": 1900} for row in rows),
        {"doc_id": "hollow", "text": ""},
        {"doc_id": "blank", "text": " \n\t "},
        {"doc_id": "short", "text": ONE},
        {"doc_id": "copy", "text": rows[0]["text"].replace("\n", " \n ")},
        {"doc_id": rows[1]["doc_id"], "text": rows[1]["text"]},
    ]
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "good.txt").write_text(TWO)
    (tmp_path / "letters" / "bad.txt").write_bytes(b"\xff\xfe\x00")
    done = extract([write_lines(tmp_path / "a.jsonl", records), str(tmp_path / "letters")], tmp_path / "out", encoder)
    assert {item["doc_id"]: item["reason"] for item in done.manifest.skipped} == {
        "hollow": "empty",
        "blank": "empty",
        "short": "one chunk: nothing to predict",
        "copy": f"duplicate of {rows[0]['doc_id']}",
        rows[1]["doc_id"]: f"duplicate of {rows[1]['doc_id']}",
        "bad.txt": "broken UTF-8 at byte 0",
    }
    assert len(done.manifest.skipped) == 6
    assert done.manifest.ignored_fields == ["year"]
    dataset = open_dataset(tmp_path / "out")
    assert dataset.doc_ids == sorted([*(row["doc_id"] for row in rows), "good.txt"])
    assert sum(done.manifest.documents.values()) == len(rows) + 1
    assert done.manifest.sources == ["a", "letters"]


def test_near_duplicate_documents_land_in_one_split(rows, encoder, tmp_path):
    edited = [row | {"doc_id": f"{row['doc_id']} (edited)", "text": row["text"] + "\nThe printer added this line."} for row in rows]
    splits = SplitConfig(val=0.3, test=0.3, min_shared=0.5)
    done = extract([write_lines(tmp_path / "a.jsonl", rows + edited)], tmp_path / "out", encoder, splits=splits)
    assert done.manifest.duplicate_groups == len(rows)
    dataset = open_dataset(tmp_path / "out")
    split = dict(zip(dataset.doc_ids, dataset.doc_splits, strict=True))
    assert all(split[row["doc_id"]] == split[copy["doc_id"]] for row, copy in zip(rows, edited, strict=True))
    assert set(split.values()) == {"train", "val", "test"}


def test_sample_is_the_same_whatever_the_order_and_grows_by_adding(tmp_path):
    ids = [f"document {i}" for i in range(60)]
    rows = [{"doc_id": doc_id, "text": f"{doc_id}. {TWO}"} for doc_id in ids]
    forwards, backwards = write_lines(tmp_path / "a.jsonl", rows), write_lines(tmp_path / "b.jsonl", rows[::-1])
    sample = scan_sources([forwards], max_docs=20)
    assert sample.kept == scan_sources([backwards], max_docs=20).kept and len(sample.kept) == 20
    assert sample.digest() == scan_sources([backwards], max_docs=20).digest() != scan_sources([forwards]).digest()
    assert sample.kept.items() < scan_sources([forwards], max_docs=30).kept.items()
    assert not set(sample.kept) <= set(ids[:30]), "a sample, not the beginning"
    assert len(scan_sources([forwards], max_docs=1000).kept) == 60


def test_sampled_dataset_holds_exactly_the_sample(source, encoder, tmp_path):
    done = extract([source], tmp_path, encoder, max_docs=3)
    assert set(open_dataset(tmp_path).doc_ids) == set(scan_sources([source], max_docs=3).kept)
    assert sum(done.manifest.documents.values()) == 3


def test_identity_of_a_corpus_includes_its_line_breaks(tmp_path):
    one = write_lines(tmp_path / "a.jsonl", [{"doc_id": "x", "text": "A title\nThe first sentence goes on. Another."}])
    two = write_lines(tmp_path / "b.jsonl", [{"doc_id": "x", "text": "A title The first sentence goes on. Another."}])
    assert scan_sources([one]).digest() != scan_sources([two]).digest()


# Refusals


@pytest.mark.parametrize(
    "records",
    [
        [("x", TWO), ("x", ONE)],
        [("y", TWO), ("x", TWO), ("x", ONE)],
        [("x", ""), ("x", TWO)],
        [("x", TWO), ("x", " ")],
    ],
    ids=["plain", "first is a copy of another", "first is empty", "second is empty"],
)
def test_one_name_for_two_texts_is_refused(records, encoder, tmp_path):
    spec = write_lines(tmp_path / "a.jsonl", [{"doc_id": d, "text": t} for d, t in records])
    assert "'x' stands for two different texts" in refusal([spec], tmp_path / "out", encoder)


@pytest.mark.parametrize("texts", [[], ["", " "], [ONE], [ONE, "Nothing else."]], ids=["no rows", "empty", "one chunk", "one chunk each"])
def test_corpus_without_a_usable_document_is_refused(texts, encoder, tmp_path):
    spec = write_lines(tmp_path / "a.jsonl", [{"doc_id": str(i), "text": t} for i, t in enumerate(texts)])
    assert f"{len(texts)} skipped" in refusal([spec], tmp_path / "out", encoder)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"doc_id": "x", "text": "caf\xe9"}', "line 1: broken UTF-8"),
        ("a.jsonl", b'{"doc_id": "x", "text":', "line 1: not JSON"),
        ("a.jsonl", b'{"doc_id": "x"}', "'text' is missing"),
        ("a.jsonl.gz", gzip.compress(b'{"doc_id": "x", "text": "' + TWO.encode() + b'"}\n', mtime=0)[:-9], "truncated"),
        ("a.parquet", b"PAR1 and no footer", "not a readable Parquet file"),
        ("a.docx", b"PK", "expected a folder"),
    ],
)
def test_malformed_source_after_a_good_one_leaves_nothing(name, content, reason, source, encoder, tmp_path):
    (tmp_path / name).write_bytes(content)
    watched = Watched(encoder)
    assert reason in refusal([source, str(tmp_path / name)], tmp_path / "out", watched)
    assert watched.texts == 0
    assert not (tmp_path / "out").exists()


def test_no_source_at_all_is_refused(encoder, tmp_path):
    assert "--source" in refusal([], tmp_path / "out", encoder)


def test_budget_over_the_encoders_limit_is_refused_with_the_greatest_that_fits(source, encoder, tmp_path):
    assert "--max-tokens 254" in refusal([source], tmp_path / "out", encoder, ChunkerConfig(max_tokens=255))
    assert extract([source], tmp_path / "out", encoder, ChunkerConfig(max_tokens=254), max_docs=1).encoded_chunks > 1


def replaced(value):
    def spoil(vectors):
        vectors[len(vectors) // 2] = value
        return vectors

    return spoil


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_that_are_zero_or_not_finite_are_refused_naming_the_document(rows, source, encoder, small_shards, tmp_path, value):
    message = refusal([source], tmp_path / "out", Watched(encoder, replaced(value)))
    assert "1 zero or non-finite" in message
    assert any(row["doc_id"] in message for row in rows)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("dim", [1, 100, 383])
def test_vectors_of_another_dimension_than_the_recipe_says_are_refused(source, encoder, tmp_path, dim):
    message = refusal([source], tmp_path / "out", Watched(encoder, lambda vectors: vectors[:, :dim]))
    assert f"{dim})" in message and "dimension 384" in message
    assert not list((tmp_path / "out").glob("*.parquet"))
