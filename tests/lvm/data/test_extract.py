"""Documents become a dataset whose rows, vectors, shards and manifest are as promised; refusals leave no dataset behind."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lvm import __version__
from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.corpus import read_corpus
from lvm.data.dataset import open_dataset
from lvm.data.extract import dataset_key, extract, make_chunker
from lvm.data.manifest import read_manifest, schema
from lvm.errors import InputError
from tests.support.corpora import Counted, WatchedEncoder, shard_digests, write_lines

ONE = "The treasury is full."
TWO = "Commerce grows in every port. The harvest was good."


def refusal(sources, out: Path, encoder, *args, **kwargs) -> str:
    """The sentence of the refusal; what was left at `out` is no dataset."""
    with pytest.raises(InputError) as caught:
        extract(sources, out, encoder, *args, **kwargs)
    assert not (out / "manifest.json").exists()
    with pytest.raises(InputError):
        open_dataset(out)
    return str(caught.value)


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
    stored = np.concatenate([np.stack(pq.read_table(whole / file).column("embedding").to_numpy()) for file in shard_digests(whole)])
    assert np.array_equal(stored, dataset.vectors)


def test_vector_column_is_plain_and_uncompressed_in_every_row_group(whole):
    for file in shard_digests(whole):
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
    assert {file.name for file in whole.iterdir()} - {"derived"} == {"manifest.json", *shard_digests(whole)}


def test_progress_rises_to_the_number_of_chunks(source, encoder, small_shards, tmp_path):
    calls = []
    done = extract([source], tmp_path, encoder, progress=lambda n, total: calls.append((n, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (done.encoded_chunks, done.encoded_chunks)
    assert {total for _, total in calls} == {done.encoded_chunks}


def test_folder_that_holds_another_dataset_is_refused_and_left_alone(whole, source, encoder):
    before = {file: (whole / file).read_bytes() for file in ["manifest.json", *shard_digests(whole)]}
    for kwargs in ({"max_docs": 3}, {"chunker": ChunkerConfig(max_tokens=32)}, {"splits": SplitConfig(val=0.2)}):
        watched = WatchedEncoder(encoder)
        with pytest.raises(InputError, match="holds another dataset"):
            extract([source], whole, watched, **kwargs)
        assert watched.texts == 0
    assert {file: (whole / file).read_bytes() for file in before} == before


def test_key_changes_with_documents_chunker_splits_and_encoder(source, encoder, tmp_path):
    def key(chunker=ChunkerConfig(), splits=SplitConfig(), recipe=encoder.recipe, max_docs=None):
        other = WatchedEncoder(encoder)
        other.recipe = recipe
        with read_corpus([source], make_chunker(chunker, encoder), tmp_path, max_docs) as corpus:
            return dataset_key(corpus, splits, other)

    keys = {
        key(),
        key(max_docs=3),
        key(ChunkerConfig(max_tokens=32)),
        key(splits=SplitConfig(test=0.2)),
        key(splits=SplitConfig(salt="2")),
        key(splits=SplitConfig(salt="3")),
        key(recipe=encoder.recipe.model_copy(update={"pooling": "cls"})),
    }
    assert len(keys) == 7
    assert key(recipe=encoder.recipe.model_copy(update={"name": "another label"})) in keys


def test_key_of_a_corpus_is_stable_from_release_to_release(encoder, tmp_path):
    source = write_lines(tmp_path / "a.jsonl", [{"doc_id": "x", "text": TWO}])
    with read_corpus([source], make_chunker(ChunkerConfig(), encoder), tmp_path) as corpus:
        assert dataset_key(corpus, SplitConfig(), encoder)[:12] == "6309776f08c2", "every stored dataset would be extracted again"


def test_key_of_the_demos_dataset_is_what_it_was_before_there_was_a_salt(encoder, tmp_path):
    with read_corpus(["builtin:sotu"], make_chunker(ChunkerConfig(), encoder), tmp_path, max_docs=120) as corpus:
        assert dataset_key(corpus, SplitConfig(salt=""), encoder) == "5099e6474ff08c7d96ea9d22bf96c64e0ff788ffd13bdbf4f81476df9d88f0b5"


def test_another_salt_gives_other_test_documents_of_the_same_corpus(source, whole, encoder, tmp_path):
    splits = SplitConfig(val=0.3, test=0.3)
    made = []
    for salt in ("2", "3"):
        extract([source], tmp_path / salt, encoder, splits=splits.model_copy(update={"salt": salt}))
        made.append(open_dataset(tmp_path / salt))
    assert made[0].doc_ids == made[1].doc_ids and np.array_equal(made[0].vectors, made[1].vectors)
    assert made[0].docs("test").tolist() != made[1].docs("test").tolist()
    assert [one.manifest.splits.salt for one in made] == ["2", "3"]


# Documents left out


def test_documents_left_out_are_counted_and_listed_in_the_manifest(rows, encoder, tmp_path):
    records = [
        *({"doc_id": row["doc_id"], "text": row["text"], "year": 1900} for row in rows[:3]),
        {"doc_id": "short", "text": ONE},
        {"doc_id": "copy", "text": rows[0]["text"]},
    ]
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "good.txt").write_text(TWO)
    done = extract([write_lines(tmp_path / "a.jsonl", records), str(tmp_path / "letters")], tmp_path / "out", encoder)
    assert done.manifest.skipped == [
        {"doc_id": "copy", "reason": f"duplicate: of {rows[0]['doc_id']}"},
        {"doc_id": "short", "reason": "one chunk: nothing to predict"},
    ]
    assert done.manifest.ignored_fields == ["year"]
    assert open_dataset(tmp_path / "out").doc_ids == sorted([*(row["doc_id"] for row in rows[:3]), "good.txt"])
    assert sum(done.manifest.documents.values()) == 4
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


def test_sampled_dataset_holds_exactly_the_sample_and_cuts_no_other_document(source, encoder, tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    done = extract([source], tmp_path / "out", encoder, max_docs=3)
    assert counted.reads == {source: 1} and sorted(counted.cuts.values()) == [1, 1, 1]
    with read_corpus([source], make_chunker(ChunkerConfig(), encoder), tmp_path, max_docs=3) as sample:
        assert open_dataset(tmp_path / "out").doc_ids == sorted(sample.kept)
    assert sum(done.manifest.documents.values()) == 3


# Refusals


@pytest.mark.parametrize("texts", [[ONE], [ONE, "Nothing else."]])
def test_documents_of_one_chunk_each_are_refused(texts, encoder, tmp_path):
    spec = write_lines(tmp_path / "a.jsonl", [{"doc_id": str(i), "text": t} for i, t in enumerate(texts)])
    assert f"no document has two chunks or more ({len(texts)} skipped)" in refusal([spec], tmp_path / "out", encoder)


def test_malformed_source_after_a_good_one_leaves_nothing(source, encoder, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"doc_id": "x"}')
    assert "'text' is missing" in refusal([source, str(tmp_path / "a.jsonl")], tmp_path / "out", encoder)
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_budget_over_the_encoders_limit_is_refused_with_the_greatest_that_fits(source, encoder, tmp_path):
    assert "set chunker.max_tokens=254 or less" in refusal([source], tmp_path / "out", encoder, ChunkerConfig(max_tokens=255))
    assert extract([source], tmp_path / "out", encoder, ChunkerConfig(max_tokens=254), max_docs=1).encoded_chunks > 1


def replaced(value):
    def spoil(vectors):
        vectors[len(vectors) // 2] = value
        return vectors

    return spoil


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_that_are_zero_or_not_finite_are_refused_naming_the_document(rows, source, encoder, small_shards, tmp_path, value):
    message = refusal([source], tmp_path / "out", WatchedEncoder(encoder, replaced(value)))
    assert "1 zero or non-finite" in message
    assert any(row["doc_id"] in message for row in rows)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("dim", [1, 383])
def test_vectors_of_another_dimension_than_the_recipe_says_are_refused(source, encoder, tmp_path, dim):
    message = refusal([source], tmp_path / "out", WatchedEncoder(encoder, lambda vectors: vectors[:, :dim]))
    assert f"{dim})" in message and "dimension 384" in message
    assert not list((tmp_path / "out").glob("*.parquet"))
