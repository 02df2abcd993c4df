import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from lvm.atomic_io import (
    DIGEST_FIELD,
    digest_json,
    is_full,
    locked,
    publish_folder,
    read_json,
    replacing,
    sha256_file,
    sha256_once,
    verified_fields,
    write_json,
    write_json_with_digest,
    write_text,
)
from lvm.errors import InputError

KILLS = 8
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_replacing_shows_the_new_file_only_when_the_block_has_ended(tmp_path):
    file = tmp_path / "deep" / "file.bin"
    with replacing(file) as temporary:
        temporary.write_bytes(b"new")
        assert not file.exists()
        assert temporary.parent == file.parent, "a rename across folders is not atomic"
    assert file.read_bytes() == b"new"
    assert names(file.parent) == {"file.bin"}


def test_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    file = tmp_path / "file.bin"
    file.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half way"), replacing(file) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError("half way")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == {"file.bin"}


def test_block_that_wrote_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    file = tmp_path / "file.bin"
    file.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), replacing(file):
        pass
    assert file.read_bytes() == b"old"


def test_two_writers_of_one_file_do_not_share_a_temporary(tmp_path):
    file = tmp_path / "file.bin"
    with replacing(file) as first, replacing(file) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert file.read_bytes() == b"first", "the block that ends last wins"
    assert names(tmp_path) == {"file.bin"}


def test_text_is_written_as_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "naïve café\n")
    assert (tmp_path / "a.txt").read_bytes() == "naïve café\n".encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, -float("inf")], {"a": {"b": float("nan")}}])
def test_json_refuses_numbers_that_are_not_json_and_keeps_the_old_file(tmp_path, value):
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})
    before = file.read_bytes()
    with pytest.raises(ValueError):
        write_json(file, value)
    with pytest.raises(ValueError):
        digest_json(value)
    assert file.read_bytes() == before
    assert names(tmp_path) == {"a.json"}


@given(st.dictionaries(st.text(), JSON, min_size=2, max_size=5))
def test_json_digest_does_not_depend_on_key_order(value):
    backwards = dict(reversed(value.items()))
    assert digest_json(backwards) == digest_json(value)
    assert digest_json({**value, next(iter(value)): "another value altogether"}) != digest_json(value)


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=3000))
def test_sha256_of_a_file_is_that_of_its_bytes(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file.bin"
        with replacing(file) as temporary:
            temporary.write_bytes(content)
        assert file.read_bytes() == content
        assert sha256_file(file) == hashlib.sha256(content).hexdigest()


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6))
def test_published_link_always_names_the_last_version(versions):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        link = root / "out" / "champion"
        for version in versions:
            source = root / version
            source.mkdir(exist_ok=True)
            (source / "config.json").write_text(version)
            published = publish_folder(source, link, version)
            assert link.resolve() == published.resolve()
            assert (link / "config.json").read_text() == version
        assert names(link.parent) == {"champion", "versions"}
        assert names(link.parent / "versions") == set(versions)


def test_published_folder_is_a_copy_that_moves_with_its_parent(tmp_path):
    source = tmp_path / "run"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "weights").write_text("w")
    publish_folder(source, tmp_path / "models" / "champion", "v1")
    shutil.rmtree(source)
    (tmp_path / "models").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "champion" / "inner" / "weights").read_text() == "w"


def test_failed_publication_keeps_the_old_version(tmp_path):
    source, link = tmp_path / "run", tmp_path / "models" / "champion"
    source.mkdir()
    (source / "weights").write_text("old")
    publish_folder(source, link, "v1")
    (source / "weights").write_text("new")
    (source / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(shutil.Error):
        publish_folder(source, link, "v2")
    assert (link / "weights").read_text() == "old"
    assert not (link.parent / "versions" / "v2").exists()


def test_link_stands_at_every_rename_of_a_publication(tmp_path, monkeypatch):
    source, link = tmp_path / "run", tmp_path / "models" / "champion"
    source.mkdir()
    publish_folder(source, link, "v1")
    found, replace = [], os.replace

    def watched(old, new):
        found.append(link.resolve(strict=True).name)
        replace(old, new)
        found.append(link.resolve(strict=True).name)

    monkeypatch.setattr(os, "replace", watched)
    publish_folder(source, link, "v2")
    assert found == ["v1", "v1", "v1", "v2"]


def test_reader_of_a_published_link_never_finds_nothing_or_a_mixture(tmp_path):
    link, source = tmp_path / "models" / "champion", tmp_path / "run"
    source.mkdir()
    reads, problems, done = [], [], threading.Event()

    def publish(version: int) -> None:
        (source / "weights").write_text(str(version))
        (source / "config").write_text(str(version))
        publish_folder(source, link, f"v{version}")

    def read() -> None:
        while not done.is_set():
            try:
                folder = link.resolve(strict=True)
                reads.append(((folder / "weights").read_text(), (folder / "config").read_text()))
            except OSError as error:
                problems.append(error)

    publish(0)
    reader = threading.Thread(target=read)
    reader.start()
    for version in range(1, 25):
        publish(version)
    done.set()
    reader.join()
    assert not problems
    assert all(weights == config for weights, config in reads)
    assert len({weights for weights, _ in reads}) > 1, "the reader saw the link move"


@pytest.mark.slow
def test_killed_writer_never_leaves_half_a_file(tmp_path):
    file, size = tmp_path / "file.bin", 200_000
    code = (
        "import itertools, sys; from pathlib import Path; from lvm.atomic_io import replacing\n"
        "for i in itertools.count():\n"
        "    with replacing(Path(sys.argv[1])) as temporary, temporary.open('wb') as out:\n"
        f"        for _ in range(20): out.write(bytes([i % 256]) * {size // 20})\n"
    )
    written = set()
    for kill in range(KILLS):
        file.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", code, str(file)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        deadline = time.monotonic() + 60
        while not file.exists():
            assert writer.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.013 * (kill + 1))
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        content = file.read_bytes()
        assert len(content) == size and len(set(content)) == 1
        written.add(content[0])
    assert len(written) > 1, "the kills fell on different writes"


def write_plain(file: Path) -> None:
    file.write_bytes(b"0" * 100_000)


def write_parquet(file: Path) -> None:
    pq.write_table(pa.table({"x": np.arange(100_000)}), file)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("write", [write_plain, write_parquet])
def test_full_disk_is_one_sentence_whichever_library_meets_it_and_what_stood_there_stands(write, tmp_path):
    file = tmp_path / "file"
    write_text(file, "earlier")
    with (
        pytest.raises(InputError, match=f"no space left to write {file}: free some and run the same command again"),
        replacing(file) as new,
    ):
        new.symlink_to("/dev/full")
        write(new)
    assert file.read_text() == "earlier" and list(tmp_path.iterdir()) == [file]


def test_full_disk_is_told_from_other_failures(tmp_path):
    with pytest.raises(KeyError, match="space"), replacing(tmp_path / "file"):
        raise KeyError("space")
    # As safetensors words it on a full tmpfs; it writes by rename itself, so the device cannot stand in for the file.
    assert is_full(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not is_full(PermissionError(errno.EACCES, "denied")) and is_full(OSError(errno.EDQUOT, "quota"))


# Digests


RECORD = {
    "arch": "lstm",
    "folds": (1, 2),
    "by_rank": {2: 1.5, 10: -0.0},
    "large": 1e200,
    "note": "naïve \U0001f642",
    "history": [{"cosine": 0.25}],
}


def read(file):
    return verified_fields(file, read_json(file, "again"), "again")


def test_object_with_a_digest_comes_back_as_json_holds_it(tmp_path):
    write_json_with_digest(tmp_path / "x.json", RECORD)
    assert read(tmp_path / "x.json") == RECORD | {"folds": [1, 2], "by_rank": {"2": 1.5, "10": -0.0}}


def test_no_flipped_bit_of_the_file_is_read_as_other_fields(tmp_path):
    file = tmp_path / "x.json"
    write_json_with_digest(file, RECORD)
    written, expected, refused = file.read_bytes(), read(file), 0
    for place in range(8 * len(written)):
        flipped = bytearray(written)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            assert read(file) == expected, f"bit {place}"
        except InputError:
            refused += 1
    assert refused > 7 * len(written), "accepted are spaces that became line ends, and capital letters in escapes and exponents"


@given(values=st.dictionaries(st.text().filter(lambda name: name != DIGEST_FIELD), JSON, max_size=4))
def test_any_object_of_json_values_is_read_again(values, tmp_path_factory):
    file = tmp_path_factory.mktemp("any") / "x.json"
    write_json_with_digest(file, values)
    assert read(file) == values


def test_object_without_a_digest_passes_only_where_none_is_required(tmp_path):
    assert verified_fields(tmp_path, {"a": 1}, "again", required=False) == {"a": 1}
    with pytest.raises(InputError, match="'fields_sha256' is not the digest of the other fields, so one of them was altered: again"):
        verified_fields(tmp_path, {"a": 1}, "again")
    with pytest.raises(InputError, match="fields_sha256"):
        verified_fields(tmp_path, {"a": 1, DIGEST_FIELD: "0" * 64}, "again", required=False)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"9" * 5_000, b"[" * 100_000, b"NaN", b"[-Infinity]", b"1e999"])
def test_what_is_no_json_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json is not JSON .*: do this"):
        read_json(tmp_path / "x.json", "do this")


def test_file_is_hashed_once_until_it_changes_even_with_its_size_and_time_restored(tmp_path, monkeypatch):
    file, hashed = tmp_path / "file", []
    monkeypatch.setattr("lvm.atomic_io.sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    file.write_bytes(b"one")
    before = file.stat()
    assert sha256_once(file) == sha256_once(file) == sha256_file(file) and len(hashed) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_once(file) == sha256_file(file) and len(hashed) == 2


def test_lock_lets_one_in_at_a_time_and_goes_with_an_error(tmp_path):
    inside = []

    def enter():
        with locked(tmp_path / "lock"):
            inside.append(True)

    with pytest.raises(RuntimeError), locked(tmp_path / "lock"):
        second = threading.Thread(target=enter)
        second.start()
        second.join(0.1)
        assert inside == []
        raise RuntimeError
    second.join(10)
    assert inside == [True]
