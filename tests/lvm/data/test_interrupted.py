"""An extraction that was interrupted goes on where it stopped; a repeated one has nothing to do; damage is repaired."""

import shutil

import numpy as np
import pytest

from lvm.data.dataset import open_dataset
from lvm.data.extract import extract
from lvm.data.manifest import read_manifest
from lvm.errors import InputError
from tests.support.corpora import Counted, WatchedEncoder, count_hashes, shard_digests, write_lines


def test_repeated_extraction_cuts_and_encodes_nothing_and_hashes_each_shard_once(whole, rows, encoder, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "out")
    reordered = write_lines(tmp_path / "reordered.jsonl", rows)
    hashed, counted, watched = count_hashes(monkeypatch), Counted(monkeypatch), WatchedEncoder(encoder)
    again = extract([reordered], tmp_path / "out", watched)
    assert (again.reused, again.encoded_chunks, watched.texts) == (True, 0, 0)
    assert again.manifest == read_manifest(whole)
    assert counted.reads == {reordered: 1} and not counted.cuts
    open_dataset(tmp_path / "out")
    assert sorted(hashed) == sorted(tmp_path / "out" / file for file in shard_digests(whole))


@pytest.mark.parametrize("call", [1, 3])
def test_interrupted_extraction_goes_on_where_it_stopped(whole, source, encoder, small_shards, tmp_path, monkeypatch, call):
    with pytest.raises(KeyboardInterrupt):
        extract([source], tmp_path, WatchedEncoder(encoder, interrupted_at=call))
    with pytest.raises(InputError, match=r"no manifest\.json"):
        open_dataset(tmp_path)
    watched, counted = WatchedEncoder(encoder), Counted(monkeypatch)
    done = extract([source], tmp_path, watched)
    assert not counted.cuts, "its chunks were staged"
    total = sum(read_manifest(whole).chunks.values())
    assert not done.reused
    assert done.encoded_chunks == watched.texts == total - (call - 1) * 16
    assert shard_digests(tmp_path) == shard_digests(whole)
    assert done.manifest.digest == read_manifest(whole).digest


def test_documents_that_changed_after_an_interruption_are_not_mixed_with_the_old(rows, source, encoder, small_shards, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract([source], tmp_path / "out", WatchedEncoder(encoder, interrupted_at=4))
    changed = write_lines(tmp_path / "openings.jsonl", [rows[0] | {"text": "New words. " + rows[0]["text"]}, *rows[1:3]])
    extract([changed], tmp_path / "out", encoder)
    extract([changed], tmp_path / "anew", encoder)
    assert shard_digests(tmp_path / "out") == shard_digests(tmp_path / "anew")
    assert "New words." in open_dataset(tmp_path / "out").texts(np.arange(16))


@pytest.mark.parametrize("content", [b"PAR1", b"not Parquet at all"])
def test_shard_that_was_damaged_after_an_interruption_is_written_anew(whole, source, encoder, small_shards, tmp_path, content):
    with pytest.raises(KeyboardInterrupt):
        extract([source], tmp_path, WatchedEncoder(encoder, interrupted_at=3))
    (tmp_path / "chunks-00001.parquet").write_bytes(content)
    extract([source], tmp_path, encoder)
    assert shard_digests(tmp_path) == shard_digests(whole)


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
    assert shard_digests(out) == shard_digests(whole)
    assert open_dataset(out).n_rows == open_dataset(whole).n_rows
