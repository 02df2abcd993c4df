"""Imported vectors are a dataset: the same one in whatever order its rows were read, with everything that was left out listed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import ChunkerConfig, SplitConfig
from lvm.data import shards
from lvm.data.dataset import open_dataset
from lvm.data.importer import block as blocks
from lvm.data.importer import tables
from lvm.data.importer.run import import_vectors
from lvm.data.manifest import SCHEMA_VERSION, content_key, read_manifest
from lvm.errors import InputError
from tests.support import own_vectors as own
from tests.support.commands import tree

LENGTHS = [4, 2, 5, 3, 6]


def spoilt(columns: dict, row: int) -> dict:
    """The columns with a zero vector in one row."""
    vectors = columns["embedding"].copy()
    vectors[row] = 0
    return columns | {"embedding": vectors}


def skipped(path: Path) -> dict[str, str]:
    return {item["doc_id"]: item["reason"] for item in read_manifest(path).skipped}


def test_the_dataset_holds_each_vector_beside_its_text_in_the_order_of_chunk_index(tmp_path):
    columns = own.documents(LENGTHS) | {"source": ["s0"] * 6 + ["s1"] * 14, "page": list(range(20))}
    order = np.random.default_rng(1).permutation(20)
    made = import_vectors([own.parquet(tmp_path / "a.parquet", columns, order)], own.recipe(), tmp_path / "out")
    found = open_dataset(tmp_path / "out")
    assert found.doc_ids == ["d0", "d1", "d2", "d3", "d4"]
    assert found.chunk_index.tolist() == columns["chunk_index"]
    assert found.texts(np.arange(20)) == columns["text"]
    assert found.table.column("source").to_pylist() == columns["source"]
    np.testing.assert_array_equal(found.vectors, columns["embedding"])
    m = made.manifest
    assert (m.recipe, m.chunker, m.encoder_dtype, m.sources, m.ignored_fields) == (own.recipe(), None, "unknown", ["s0", "s1"], ["page"])
    assert m.key == content_key(SCHEMA_VERSION, m.source_digest, None, SplitConfig(), own.recipe())
    assert sum(m.documents.values()) == 5 and min(m.documents.values()) > 0 and m.skipped == []


@settings(max_examples=25)
@given(data=st.data())
def test_any_order_of_the_rows_in_any_number_of_files_gives_the_same_bytes(data, tmp_path_factory):
    """Documents that are left out and rows that occur again included; read and written in small blocks."""
    folder = tmp_path_factory.mktemp("order")
    columns = own.documents([3, 12, 2, 1, 4, 5])
    kept = [row for row in range(27) if row != 20] + [4, 4, 17]  # a gap in d4, and rows that occur again
    columns = spoilt(columns, 25) | {"source": ["s"] * 27}
    order = data.draw(st.permutations(kept))
    cut = data.draw(st.integers(0, len(order)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_ROWS", 7)
        patch.setattr(blocks, "BLOCK_ROWS", 5)
        patch.setattr(tables, "BLOCK_ROWS", 5)
        import_vectors([own.parquet(folder / "all.parquet", columns, kept)], own.recipe(), folder / "one")
        parts = [own.parquet(folder / f"{name}.parquet", columns, rows) for name, rows in (("x", order[:cut]), ("y", order[cut:]))]
        import_vectors([part for part in parts if pa.parquet.read_metadata(part).num_rows], own.recipe(), folder / "two")
    assert len(read_manifest(folder / "one").shards) == 3
    assert skipped(folder / "one").keys() == {"d1", "d3", "d4", "d5"}
    assert tree(folder / "one") == tree(folder / "two")


@pytest.mark.parametrize("kind", [pa.list_(pa.float16()), pa.list_(pa.float64(), own.DIM), pa.large_list(pa.float32())], ids=str)
def test_the_same_numbers_of_another_type_are_the_same_dataset(kind, tmp_path):
    columns = own.documents(LENGTHS)
    one = import_vectors([own.parquet(tmp_path / "a.parquet", columns)], own.recipe(), tmp_path / "one")
    two = import_vectors([own.parquet(tmp_path / "b" / "a.parquet", columns, kind=kind)], own.recipe(), tmp_path / "two")
    assert one.manifest == two.manifest


def test_another_vector_text_id_recipe_or_split_is_another_key(tmp_path):
    columns = own.documents(LENGTHS)

    def key(name: str, changed: dict, recipe=own.recipe(), splits=SplitConfig()) -> str:
        return import_vectors([own.parquet(tmp_path / name / "a.parquet", changed)], recipe, tmp_path / name / "out", splits).manifest.key

    vectors = columns["embedding"].copy()
    vectors[3, 0] += 1
    keys = [
        key("same", columns),
        key("vector", columns | {"embedding": vectors}),
        key("text", columns | {"text": ["Another text.", *columns["text"][1:]]}),
        key("id", columns | {"doc_id": [f"{doc_id}0" for doc_id in columns["doc_id"]]}),
        key("recipe", columns, own.recipe(pooling="cls")),
        key("splits", columns, splits=SplitConfig(salt="x")),
    ]
    assert len(set(keys)) == len(keys)


def test_an_import_never_has_the_key_of_an_extraction():
    of = [content_key(SCHEMA_VERSION, "0", chunker, SplitConfig(), own.recipe()) for chunker in (None, ChunkerConfig())]
    assert of[0] != of[1]


def test_the_same_import_again_finds_the_dataset_and_a_damaged_one_is_made_again(tmp_path):
    path, out = own.parquet(tmp_path / "a.parquet", own.documents(LENGTHS)), tmp_path / "out"
    made = import_vectors([path], own.recipe(), out)
    before = tree(out)
    assert not made.reused and import_vectors([path], own.recipe(), out).reused
    (out / "chunks-00000.parquet").write_bytes(b"damaged")
    assert not import_vectors([path], own.recipe(), out).reused
    assert tree(out) == before
    with pytest.raises(InputError, match=r"holds another dataset"):
        import_vectors([path], own.recipe(pooling="cls"), out)


def test_documents_of_equal_texts_or_without_texts_of_equal_vectors_share_a_split(tmp_path):
    columns = own.documents([4] * 40)
    columns["text"][4:8] = columns["text"][100:104]
    columns["embedding"][8:12] = columns["embedding"][104:108]
    for name, changed, pair in (
        ("texts", columns, ("d1", "d25")),
        ("vectors", {field: values for field, values in columns.items() if field != "text"}, ("d2", "d26")),
    ):
        for salt in "abcdefgh":
            out = tmp_path / name / salt
            path = own.parquet(tmp_path / f"{name}.parquet", changed)
            assert import_vectors([path], own.recipe(), out, SplitConfig(salt=salt)).manifest.duplicate_groups == 1
            splits = dict(zip(open_dataset(out).doc_ids, open_dataset(out).doc_splits, strict=True))
            assert splits[pair[0]] == splits[pair[1]]


def test_a_document_with_a_bad_chunk_is_left_out_whole_and_listed_with_its_reason(tmp_path):
    columns = own.documents([4] * 14)
    vectors = columns["embedding"]
    vectors[1] = np.nan
    vectors[6] = 0
    columns["text"][10] = None
    columns["text"][15] = " \n"
    columns["chunk_index"][18] = None
    columns["chunk_index"][23] = 9
    columns["doc_id"][24] = None
    made = import_vectors([own.parquet(tmp_path / "a.parquet", columns)], own.recipe(), tmp_path / "out")
    assert skipped(tmp_path / "out") == {
        str(tmp_path / "a.parquet"): "rows without doc_id: 1",
        "d0": "no vector, or one with missing or infinite numbers: chunk_index 1",
        "d1": "vector of zeros: chunk_index 2",
        "d2": "no text: chunk_index 2",
        "d3": "no text: chunk_index 3",
        "d4": "chunk without chunk_index",
        "d5": "missing chunks: between chunk_index 2 and 9",
    }
    assert sum(made.manifest.documents.values()) == 8 and sum(made.manifest.chunks.values()) == 31


def test_chunks_may_be_counted_from_any_number(tmp_path):
    columns = own.documents(LENGTHS)
    columns["chunk_index"] = [index + 1 for index in columns["chunk_index"]]
    import_vectors([own.parquet(tmp_path / "a.parquet", columns)], own.recipe(), tmp_path / "out")
    assert open_dataset(tmp_path / "out").chunk_index[:4].tolist() == [0, 1, 2, 3]


def test_rows_in_order_keep_their_order_within_their_document(tmp_path):
    columns = own.documents([3, 3])
    order = [3, 0, 4, 1, 2, 5]
    import_vectors([own.parquet(tmp_path / "a.parquet", columns, order)], own.recipe(), tmp_path / "out", in_order=True)
    assert open_dataset(tmp_path / "out").texts(np.arange(6)) == columns["text"]
    columns["doc_id"][2] = None
    with pytest.raises(InputError, match=r"a.parquet, row 3 has no doc_id, so some document lacks a chunk"):
        import_vectors([own.parquet(tmp_path / "a.parquet", columns)], own.recipe(), tmp_path / "other", in_order=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c | {"chunk_index": [0, 1, 1, 2, 0, 1]}, "doc_id 'd0', chunk_index 1 stands for two different chunks"),
        (
            lambda c: c | {"chunk_index": [0, 90, 170, 250, 0, 80]},
            "2 of 2 documents cannot be used, 2 of them for one reason: missing chunks: between chunk_index 0 and .* give --in-order",
        ),
        (lambda c: spoilt(spoilt(c, 0), 4), "2 of 2 documents cannot be used, 2 of them for one reason: vector of zeros"),
        (lambda c: c | {"embedding": c["embedding"][:, :3]}, "row 1: a vector of dimension 3, but the recipe says dim 4"),
        (
            lambda c: c | {"embedding": c["embedding"] / np.linalg.norm(c["embedding"], axis=1, keepdims=True)},
            "recipe field 'normalize' is false, but all 6 vectors are of unit length: declare normalize: true",
        ),
    ],
)
def test_an_input_that_cannot_be_right_is_refused_and_nothing_is_left_behind(change, sentence, tmp_path):
    path = own.parquet(tmp_path / "a.parquet", change(own.documents([4, 2])))
    with pytest.raises(InputError, match=sentence):
        import_vectors([path], own.recipe(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_without_rows_is_refused(tmp_path):
    pa.parquet.write_table(own.table(own.documents([2])).slice(0, 0), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"the input holds no row with a doc_id and a vector"):
        import_vectors([tmp_path / "a.parquet"], own.recipe(), tmp_path / "out")


def test_vectors_of_other_lengths_are_refused_where_the_recipe_normalises_and_float16_is_not_taken_for_one(tmp_path):
    columns = own.documents(LENGTHS, 32)
    unit = (columns["embedding"] / np.linalg.norm(columns["embedding"], axis=1, keepdims=True)).astype(np.float16)
    rounded = own.parquet(tmp_path / "a.parquet", columns | {"embedding": unit}, kind=pa.list_(pa.float16()))
    import_vectors([rounded], own.recipe(32, normalize=True), tmp_path / "out")
    unit[7] *= 2
    longer = own.parquet(tmp_path / "b.parquet", columns | {"embedding": unit})
    with pytest.raises(InputError, match=r"1 of 20 vectors are not of unit length \(that of .*b.parquet, row 8, is 2 long\)"):
        import_vectors([longer], own.recipe(32, normalize=True), tmp_path / "other")


def test_more_than_half_left_out_needs_keep_going(tmp_path):
    columns = own.documents([4, 4, 1, 1, 1])
    path = own.parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=r"3 of 5 documents cannot be used, 3 of them .* one chunk: nothing to predict; .* --keep-going"):
        import_vectors([path], own.recipe(), tmp_path / "out")
    made = import_vectors([path], own.recipe(), tmp_path / "out", keep_going=True)
    assert sum(made.manifest.documents.values()) == 2


def test_windows_become_a_dataset_without_texts_that_says_what_is_not_known(tmp_path):
    documents = {f"d{i}": own.vectors(6 + i, seed=i) for i in range(5)}
    made = import_vectors([own.windows(tmp_path / "old.npz", documents, 3)], own.recipe(), tmp_path / "out")
    found = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(found.vectors, np.concatenate(list(documents.values())))
    assert not found.has_texts
    assert any("documents shorter than a window" in remark for remark in made.remarks)
    assert any("there are no texts to encode again" in remark for remark in made.remarks)
    with pytest.raises(InputError, match=r"holds vectors without texts, which are needed here: import it again"):
        found.texts([0])


def test_without_texts_equal_vectors_stand_for_equal_texts(tmp_path):
    documents = {"a": own.vectors(5, seed=1), "b": own.vectors(5, seed=2)}
    documents["b"][3] = documents["a"][1]
    import_vectors([own.windows(tmp_path / "old.npz", documents, 2)], own.recipe(), tmp_path / "out")
    for reverse in (False, True):
        found = open_dataset(tmp_path / "out").directed(reverse)
        same = found.text_codes[:, None] == found.text_codes
        np.testing.assert_array_equal(same, (found.vectors[:, None] == found.vectors).all(-1))
    assert same.sum() == found.n_rows + 2
