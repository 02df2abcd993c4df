import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lvm.atomic_io import sha256_file
from lvm.config import ChunkerConfig, SplitConfig
from lvm.data import dataset as module
from lvm.data.dataset import open_dataset
from lvm.data.manifest import SPLITS, content_key, read_manifest
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError
from tests.support.corpora import count_hashes
from tests.support.edited import edit_json

SHARD = "chunks-00000.parquet"


@pytest.fixture()
def copy(dataset, tmp_path) -> Path:
    """The shared dataset's files, to be damaged."""
    return Path(shutil.copytree(dataset.path, tmp_path / "copy", ignore=shutil.ignore_patterns("derived")))


def edit_manifest(path: Path, change) -> None:
    edit_json(path / "manifest.json", change)


def sign(values: dict) -> None:
    """Give a manifest the key of its fields."""
    chunker, splits, recipe = ChunkerConfig(**values["chunker"]), SplitConfig(**values["splits"]), EncoderRecipe(**values["recipe"])
    values["key"] = content_key(values["schema_version"], values["source_digest"], chunker, splits, recipe)


def rewrite_shard(path: Path, change) -> None:
    """Replace the shard by an altered one with a manifest to match, as a faulty writer would."""
    pq.write_table(change(pq.read_table(path / SHARD)), path / SHARD)
    edit_manifest(path, lambda values: values["shards"][0].update(sha256=sha256_file(path / SHARD)))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(path)
    assert not list(path.glob("derived/[!.]*")), "a refused dataset leaves no cache that a later stage could read"
    return str(caught.value)


def test_documents_cover_the_rows_without_gap_or_overlap(dataset):
    assert dataset.starts[0] == 0 and dataset.starts[-1] == dataset.n_rows == len(dataset.table)
    assert np.all(np.diff(dataset.starts) >= 2)
    ids = np.array(dataset.table.column("doc_id").to_pylist())
    assert np.array_equal(np.array(dataset.doc_ids)[dataset.row_doc], ids)
    assert np.array_equal(dataset.chunk_index, np.arange(dataset.n_rows) - dataset.starts[dataset.row_doc])


def test_splits_divide_documents_and_rows_completely(dataset):
    assert np.array_equal(np.sort(np.concatenate([dataset.docs(split) for split in SPLITS])), dataset.docs("all"))
    assert np.array_equal(np.sort(np.concatenate([dataset.rows(split) for split in SPLITS])), np.arange(dataset.n_rows))
    splits = np.array(dataset.table.column("split").to_pylist())
    for split in SPLITS:
        assert len(dataset.docs(split)) > 0
        assert set(splits[dataset.rows(split)]) == {split}


def test_vectors_are_the_stored_ones_mapped_and_read_only(dataset):
    stored = pq.read_table(dataset.path / SHARD, columns=["embedding"]).column(0).combine_chunks()
    assert np.array_equal(stored.flatten().to_numpy().reshape(-1, dataset.dim), dataset.vectors)
    assert isinstance(dataset.vectors, np.memmap) and dataset.vectors.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        dataset.vectors[0] = 0


def test_texts_come_in_the_order_that_was_asked_for(dataset):
    column = dataset.table.column("text").to_pylist()
    assert dataset.texts([7, 0, 7]) == [column[7], column[0], column[7]]
    assert dataset.texts(np.array([], np.int64)) == []


def test_text_codes_are_equal_exactly_for_equal_texts(dataset):
    column = dataset.table.column("text").to_pylist()
    pairs = set(zip(column, dataset.text_codes.tolist(), strict=True))
    assert len(pairs) == len(set(column)) == len(set(dataset.text_codes.tolist())) < len(column)


def test_flat_copy_of_the_vectors_is_made_once(copy, dataset):
    vectors = np.array(open_dataset(copy).vectors)
    (flat,) = copy.glob("derived/*.f32")
    made = flat.stat().st_mtime_ns
    assert np.array_equal(open_dataset(copy).vectors, vectors)
    assert flat.stat().st_mtime_ns == made
    assert flat == copy / "derived" / dataset.derived("vectors.f32").name


@pytest.mark.parametrize("opened_before", [True, False])
def test_flat_copy_with_flipped_signs_is_never_used(copy, dataset, opened_before):
    open_dataset(copy)
    (flat,) = copy.glob("derived/*.f32")
    stored = np.fromfile(flat, np.float32)
    stored[:: 50 * dataset.dim] *= -1
    stored.tofile(flat)
    if not opened_before:
        module._opened.clear()
    assert np.array_equal(open_dataset(copy).vectors, dataset.vectors)


def test_digest_follows_the_key_and_the_bytes_of_the_shards(dataset):
    manifest = dataset.manifest
    moved = manifest.model_copy(update={"code_version": "9", "encoder_dtype": "float64"})
    other_key = manifest.model_copy(update={"key": "0"})
    other_bytes = manifest.model_copy(update={"shards": [shard.model_copy(update={"sha256": "0"}) for shard in manifest.shards]})
    assert moved.digest == manifest.digest
    assert len({manifest.digest, other_key.digest, other_bytes.digest}) == 3


# Opened once in a process


def test_seven_tasks_of_a_flow_hash_and_read_a_dataset_once(copy, monkeypatch):
    hashed = count_hashes(monkeypatch)
    with ThreadPoolExecutor(7) as tasks:
        opened = list(tasks.map(open_dataset, [copy] * 7))
    assert hashed == [copy / SHARD]
    assert all(data is opened[0] for data in opened)


def test_one_folder_under_two_paths_is_hashed_once_and_each_keeps_its_path(copy, monkeypatch):
    hashed = count_hashes(monkeypatch)
    monkeypatch.chdir(copy.parent)
    assert open_dataset(Path("copy")).path == Path("copy") and open_dataset(copy).path == copy
    assert hashed == [copy / SHARD] or hashed == [Path("copy") / SHARD]


def test_shard_altered_after_it_was_opened_is_noticed_even_with_its_size_and_time_restored(copy):
    opened, before = open_dataset(copy), (copy / SHARD).stat()
    content = bytearray((copy / SHARD).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / SHARD).write_bytes(content)
    os.utime(copy / SHARD, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match="truncated or altered"):
        open_dataset(copy)
    content[len(content) // 2] ^= 1
    (copy / SHARD).write_bytes(content)
    assert open_dataset(copy).manifest == opened.manifest


def test_changed_manifest_is_read_again(copy):
    opened = open_dataset(copy)
    edit_manifest(copy, lambda values: values.update(code_version="9"))
    assert open_dataset(copy).manifest.code_version == "9" != opened.manifest.code_version


def test_a_process_keeps_few_datasets_open(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT_OPEN", 2)
    others = [Path(shutil.copytree(copy, tmp_path / str(i))) for i in range(2)]
    first, second = open_dataset(copy), open_dataset(others[0])
    assert open_dataset(copy) is first
    open_dataset(others[1])
    assert open_dataset(copy) is first and open_dataset(others[0]) is not second


# Refusals


def test_folder_that_does_not_exist_is_refused_with_the_command_that_makes_it(tmp_path):
    assert "lvm extract" in refusal(tmp_path / "nothing")


def test_missing_manifest_means_that_extraction_did_not_finish(copy):
    (copy / "manifest.json").unlink()
    assert "no manifest.json: extraction did not finish" in refusal(copy)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_manifest_that_is_not_json_is_refused(copy, content):
    (copy / "manifest.json").write_bytes(content)
    assert "manifest.json is not JSON" in refusal(copy)


@pytest.mark.parametrize("version", [0, 2, "one", None])
def test_other_schema_version_is_refused(copy, version):
    edit_manifest(copy, lambda values: values.update(schema_version=version))
    assert "'schema_version' must be 1" in refusal(copy)


def test_manifest_that_is_a_list_is_refused(copy):
    (copy / "manifest.json").write_text("[]")
    assert "schema_version" in refusal(copy)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values.update(shuffled=True), "unknown field 'shuffled'"),
        (lambda values: values["recipe"].update(dropout=0.1), "unknown field 'recipe.dropout'"),
        (lambda values: values.pop("key"), "field 'key'"),
        (lambda values: values.update(shards=[]), "field 'shards'"),
        (lambda values: values["recipe"].update(dim="wide"), "field 'recipe.dim'"),
    ],
)
def test_unknown_missing_or_mistyped_field_of_the_manifest_is_refused_by_name(copy, change, reason):
    edit_manifest(copy, change)
    assert reason in refusal(copy)


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_truncated_shard_is_refused_by_name(copy, keep):
    (copy / SHARD).write_bytes((copy / SHARD).read_bytes()[:keep])
    message = refusal(copy)
    assert str(copy / SHARD) in message and "truncated or altered" in message


def test_shard_with_one_altered_bit_is_refused_by_name(copy):
    content = bytearray((copy / SHARD).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / SHARD).write_bytes(content)
    assert "truncated or altered" in refusal(copy)


def test_missing_shard_is_refused_by_name(copy):
    (copy / SHARD).unlink()
    assert f"{copy / SHARD} is missing" in refusal(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(source_digest="0"),
        lambda values: values["chunker"].update(max_tokens=32),
        lambda values: values["splits"].update(test=0.2),
        lambda values: values["splits"].update(salt="another"),
        lambda values: values["recipe"].update(normalize=False),
        lambda values: values.update(key="0"),
    ],
)
def test_manifest_whose_key_is_not_that_of_its_fields_is_refused(copy, change):
    edit_manifest(copy, change)
    assert "field 'key' is not that of source_digest, chunker, splits and recipe" in refusal(copy)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda values: values["recipe"].update(normalize=False), "lvm.key, lvm.recipe"),
        (lambda values: values["recipe"].update(dim=768), "lvm.key, lvm.recipe"),
        (lambda values: values["chunker"].update(max_tokens=32), "lvm.key, lvm.chunker"),
        (lambda values: values["splits"].update(salt="another"), "lvm.key"),
        (lambda values: values.update(source_digest="0"), "lvm.key, lvm.source_digest"),
    ],
)
def test_manifest_that_disagrees_with_the_shards_is_refused_by_field(copy, change, names):
    edit_manifest(copy, change)
    edit_manifest(copy, sign)
    assert f"disagree on {names};" in refusal(copy)


def test_shard_of_unknown_origin_is_refused(copy):
    rewrite_shard(copy, lambda table: table.replace_schema_metadata(None))
    assert "lvm.key" in refusal(copy)


def test_name_of_the_encoder_is_a_label_and_may_differ(copy):
    edit_manifest(copy, lambda values: values["recipe"].update(name="sentence-transformers:elsewhere"))
    assert open_dataset(copy).manifest.recipe.name == "sentence-transformers:elsewhere"


def test_vectors_of_another_dimension_than_the_recipe_are_refused(copy):
    def narrow(table: pa.Table) -> pa.Table:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(len(table) * 100, np.float32)), 100)
        return table.set_column(table.column_names.index("embedding"), "embedding", vectors).replace_schema_metadata(table.schema.metadata)

    rewrite_shard(copy, narrow)
    assert "not of dimension 384" in refusal(copy)


def test_rows_of_a_document_that_do_not_stand_together_are_refused(copy):
    rewrite_shard(copy, lambda table: pa.concat_tables([table.slice(1), table.slice(0, 1)]))
    assert "do not stand together" in refusal(copy)


def test_unknown_split_is_refused_by_name(copy):
    def rename(table: pa.Table) -> pa.Table:
        splits = pa.array(["dev" if split == "val" else split for split in table.column("split").to_pylist()])
        return table.set_column(table.column_names.index("split"), "split", splits)

    rewrite_shard(copy, rename)
    assert "['dev']" in refusal(copy)


def test_manifest_read_alone_is_the_datasets(dataset):
    assert read_manifest(dataset.path) == dataset.manifest


def test_manifest_from_before_there_was_a_salt_is_read_as_one_without(copy):
    edit_manifest(copy, lambda values: values["splits"].pop("salt"))
    assert open_dataset(copy).manifest.splits.salt == ""
