"""Files are decompressed by what they hold, not by their names, and read to their end or refused."""

import bz2
import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from lvm.data.sources.files import Place
from tests.support.reading import ROWS, documents, json_lines, left_out, refusal


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content).to_pybytes()


CODECS = {"plain": bytes, "gzip": gzip.compress, "bz2": bz2.compress, "zstd": zstd}


@pytest.mark.parametrize("compress", CODECS.values(), ids=CODECS.keys())
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.JSONL.ZST", "a.ndjson.bz2", "a.jsonl.zst.gz"])
def test_compression_is_told_by_the_content_whatever_the_name(tmp_path, name, compress):
    (tmp_path / name).write_bytes(compress(json_lines(ROWS)))
    assert [document.text for document in documents(tmp_path / name)] == [row["text"] for row in ROWS]
    assert documents(tmp_path)[0].doc_id == "first"


@pytest.mark.parametrize("compress", CODECS.values(), ids=CODECS.keys())
def test_compressed_text_keeps_its_name(tmp_path, compress):
    (tmp_path / "g.txt.gz").write_bytes(compress(b"Sound text."))
    assert [(document.doc_id, document.text) for document in documents(tmp_path)] == [("g.txt.gz", "Sound text.")]


def test_parts_that_were_compressed_one_by_one_and_joined_are_read_to_the_end(tmp_path):
    for compress in list(CODECS.values())[1:]:
        (tmp_path / "a.jsonl").write_bytes(compress(json_lines(ROWS[:1])) + compress(json_lines(ROWS[1:])))
        assert len(documents(tmp_path / "a.jsonl")) == 2


def packed(rows: int = 200) -> bytes:
    return gzip.compress(json_lines({"doc_id": f"d{i}", "text": f"Number {i * i}."} for i in range(rows)))


@pytest.mark.parametrize(
    "content",
    [packed()[:-300], packed()[:-4], packed()[:-6] + b"\0\0\0\0\0\0", packed()[:400] + b"\xff" * 200, packed() + b"more"],
    ids=["cut in the data", "cut in the trailer", "wrong length", "overwritten", "something after it"],
)
def test_truncated_or_damaged_gzip_is_refused_by_name_as_a_table_and_skipped_as_a_document(tmp_path, content):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(content)
    assert f"{file} is truncated, damaged" in refusal(file)
    file.rename(tmp_path / "a.txt.gz")
    assert [(name, reason.split(":")[0]) for name, reason in left_out(tmp_path)] == [("a.txt.gz", "damaged or cannot be opened")]


def test_walk_of_another_file_system_leaves_out_what_tools_made_once(tmp_path):
    for name in ("a.txt", ".git/x.txt", ".git/y.txt", "b/node_modules/z.md", "b/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Text.")
    away = fs.SubTreeFileSystem(str(tmp_path.parent), fs.LocalFileSystem())
    found = list(Place(f"away://{tmp_path.name}", tmp_path.name, away, True).walk())
    assert [getattr(item, "name", None) or item.doc_id for item in found] == [".git", "a.txt", "b/c.md", "b/node_modules"]
    assert found[1].read() == b"Text."


def test_file_that_vanished_is_skipped(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("Sound text.")
    walk = Place.walk

    def late(place):
        found = list(walk(place))
        Path(tmp_path / "a.txt").unlink()
        return found

    monkeypatch.setattr(Place, "walk", late)
    ((name, reason),) = left_out(tmp_path)
    assert name == "a.txt" and "cannot be opened" in reason
