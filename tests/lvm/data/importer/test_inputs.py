"""Every kind of file that holds vectors is read, whole and in order; what is no such file is refused or counted."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from lvm.data.importer.inputs import Inputs
from lvm.errors import InputError
from tests.support import own_vectors as own

COLUMNS = own.documents([3, 2])


def rows(inputs: Inputs) -> dict[str, list]:
    """All rows that are read, in order."""
    found: dict[str, list] = {"doc_id": [], "chunk_index": [], "text": [], "embedding": [], "source": []}
    for block, source in inputs:
        n = len(block.doc_ids)
        found["doc_id"] += block.doc_ids.to_pylist()
        found["chunk_index"] += [None] * n if block.chunk_index is None else block.chunk_index.to_pylist()
        found["text"] += [None] * n if block.texts is None else block.texts.to_pylist()
        found["embedding"] += block.vectors.tolist()
        found["source"] += [source] * n if block.sources is None else block.sources.to_pylist()
    return found


def expect(found: dict[str, list], source: str) -> None:
    assert found["doc_id"] == COLUMNS["doc_id"]
    assert found["chunk_index"] == COLUMNS["chunk_index"]
    assert found["text"] == COLUMNS["text"]
    assert found["embedding"] == COLUMNS["embedding"].tolist()
    assert found["source"] == [source] * 5


def feather(path: Path) -> None:
    pyarrow.feather.write_feather(own.table(COLUMNS), path)


def arrow_stream(path: Path) -> None:
    """As Hugging Face's `save_to_disk` writes it."""
    whole = own.table(COLUMNS)
    with pa.ipc.new_stream(path, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=2)


def row_groups(path: Path) -> None:
    pq.write_table(own.table(COLUMNS), path, row_group_size=2)


def archive(path: Path) -> None:
    np.savez(path, **{name: np.array(values) for name, values in COLUMNS.items()})


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.parquet", row_groups), ("a.PQ", row_groups), ("a.feather", feather), ("a.arrow", arrow_stream), ("a.npz", archive)],
)
def test_each_kind_of_file_gives_its_rows(name, write, tmp_path):
    write(tmp_path / name)
    expect(rows(Inputs([tmp_path / name], own.DIM)), "a")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_an_array_and_a_table_of_ids_are_one_table(suffix, tmp_path):
    np.save(tmp_path / "v.npy", COLUMNS["embedding"].astype(np.float64))
    table = pa.table({name: values for name, values in COLUMNS.items() if name != "embedding"})
    path = tmp_path / f"ids.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, table.to_pylist())))
    else:
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter="\t" if suffix == "tsv" else ","))
    expect(rows(Inputs([tmp_path / "v.npy"], own.DIM, ids=path)), "v")


def test_a_text_file_has_an_id_a_line(tmp_path):
    np.save(tmp_path / "v.npy", np.asfortranarray(COLUMNS["embedding"]))
    (tmp_path / "ids.txt").write_text("\n".join(COLUMNS["doc_id"]) + "\n")
    found = rows(Inputs([tmp_path / "v.npy"], own.DIM, ids=tmp_path / "ids.txt", in_order=True))
    assert (found["doc_id"], found["embedding"]) == (COLUMNS["doc_id"], COLUMNS["embedding"].tolist())


def test_a_folder_is_read_in_the_order_of_its_paths_and_other_files_are_listed(tmp_path):
    folder = tmp_path / "store"
    own.parquet(folder / "b" / "2.parquet", COLUMNS, [3, 4])
    own.parquet(folder / "a.parquet", COLUMNS, [0, 1, 2], kind=pa.list_(pa.float16(), own.DIM))
    (folder / "_SUCCESS").touch()
    (folder / "README.md").write_text("A card.")
    inputs = Inputs([folder], own.DIM)
    expect(rows(inputs), "store")
    assert [vars(item) for item in inputs.skipped] == [{"doc_id": "README.md", "reason": "not a Parquet or Arrow file"}]


def test_folders_named_after_a_column_hold_its_values(tmp_path):
    pq.write_to_dataset(own.table(COLUMNS), tmp_path / "store", partition_cols=["doc_id"])
    expect(rows(Inputs([tmp_path / "store"], own.DIM)), "store")


def test_columns_of_a_lancedb_table_of_llamaindex_are_found_and_its_others_listed(tmp_path):
    columns = {
        "id": [f"node-{i}" for i in range(5)],
        "doc_id": COLUMNS["doc_id"],
        "vector": COLUMNS["embedding"],
        "text": COLUMNS["text"],
        "metadata": [{"page": i, "position": k} for i, k in enumerate(COLUMNS["chunk_index"])],
    }
    path = own.parquet(tmp_path / "nodes.parquet", columns, kind=pa.list_(pa.float32(), own.DIM))
    inputs = Inputs([path], own.DIM, {"chunk_index": "metadata.position"})
    expect(rows(inputs), "nodes")
    assert inputs.ignored == {"id"}
    assert inputs.renamed == {"embedding": "vector", "chunk_index": "metadata.position"}


def test_with_in_order_no_chunk_index_is_needed_and_none_is_read(tmp_path):
    path = own.parquet(tmp_path / "a.parquet", COLUMNS)
    inputs = Inputs([path], own.DIM, in_order=True)
    assert rows(inputs)["chunk_index"] == [None] * 5
    assert inputs.ignored == {"chunk_index"}


def without(name: str, path: Path) -> Path:
    return own.parquet(path, {other: values for other, values in COLUMNS.items() if other != name})


def damaged(path: Path) -> Path:
    own.parquet(path, COLUMNS)
    path.write_bytes(path.read_bytes()[:-9])
    return path


def lance(path: Path) -> Path:
    (path / "data").mkdir(parents=True)
    (path / "data" / "0.lance").touch()
    return path


def wide(path: Path) -> Path:
    np.savez(path, vectors=np.zeros((5, 3), np.float32), doc_ids=np.array(COLUMNS["doc_id"]), position=np.arange(5))
    return path


def uneven(path: Path) -> Path:
    np.savez(path, vectors=COLUMNS["embedding"], doc_ids=np.array(COLUMNS["doc_id"][1:]), position=np.arange(5))
    return path


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("none.parquet", lambda path: path, "none.parquet does not exist: give a .parquet or .arrow file"),
        (
            "a.parquet",
            lambda path: without("chunk_index", path),
            "no column 'chunk_index', so their order is not known; .*--in-order",
        ),
        ("a.parquet", lambda path: without("doc_id", path), "there is no column 'doc_id'"),
        ("a.parquet", damaged, "a.parquet cannot be read .*: copy or write it again"),
        ("a.xlsx", lambda path: without("", path), "a.xlsx is of an unknown kind: give a .parquet or .arrow file"),
        ("a.lance", lance, "a.lance contains no Parquet or Arrow file: a Lance table is to be written as Parquet first"),
        ("a.npz", wide, r"array 'vectors' is of shape \[5, 3\], but the recipe says dim 4"),
        ("a.npz", uneven, r"array 'doc_ids' is of shape \(4,\), but there are 5 vectors"),
        ("a.npy", lambda path: path.touch() or path, "a.npy holds vectors without ids: give a file with a row for each vector by --ids"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(name, make, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        rows(Inputs([make(tmp_path / name)], own.DIM))


@pytest.mark.parametrize(
    ("ids", "content", "sentence"),
    [
        ("ids.txt", "a\nb", "ids.txt has 2 rows, but .*v.npy has 5 vectors: give one row for each vector"),
        ("ids.csv", "name\na\nb\nc\nd\ne", "there is no column 'doc_id'"),
        ("ids.jsonl", "{", "ids.jsonl cannot be read"),
        ("ids.xml", "<a/>", "--ids .*ids.xml is of an unknown kind: give a .txt, .csv"),
        ("ids.txt", None, "--ids .*ids.txt does not exist"),
    ],
)
def test_ids_that_do_not_fit_are_one_sentence(ids, content, sentence, tmp_path):
    np.save(tmp_path / "v.npy", COLUMNS["embedding"])
    if content is not None:
        (tmp_path / ids).write_text(content)
    with pytest.raises(InputError, match=sentence):
        rows(Inputs([tmp_path / "v.npy"], own.DIM, ids=tmp_path / ids, in_order=True))


def test_a_pickled_or_damaged_array_is_not_loaded(tmp_path):
    (tmp_path / "ids.txt").write_text("a\nb")
    np.save(tmp_path / "v.npy", np.array([[1, None], [2, 3]], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"v.npy: it holds pickled objects, which are not loaded"):
        rows(Inputs([tmp_path / "v.npy"], 2, ids=tmp_path / "ids.txt", in_order=True))
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"v.npy: it cannot be read"):
        rows(Inputs([tmp_path / "v.npy"], 2, ids=tmp_path / "ids.txt", in_order=True))


def test_ids_without_their_array_alone_are_refused(tmp_path):
    path = own.parquet(tmp_path / "a.parquet", COLUMNS)
    with pytest.raises(InputError, match=r"--ids .* goes with one .npy file and nothing else"):
        Inputs([path], own.DIM, ids=path)
