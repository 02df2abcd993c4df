"""Derived files are read as they were written or made again, by one writer at a time."""

import logging
import multiprocessing
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.data.derived import derived_file, is_intact

CONTENT = bytes(range(200))


def writing(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def refuse(path: Path) -> None:
    raise AssertionError("made again")


def append_line(seconds: float, calls: Path, path: Path) -> None:
    """Make the file slowly, and leave a line for it."""
    with calls.open("a") as file:
        file.write("made\n")
    time.sleep(seconds)
    path.write_bytes(CONTENT)


def need(file: Path, calls: Path) -> None:
    assert derived_file(file, partial(append_line, 0.2, calls)).read_bytes() == CONTENT


@pytest.fixture()
def made(tmp_path: Path) -> Path:
    return derived_file(tmp_path / "derived" / "leaked.npy", writing(CONTENT))


def test_an_intact_file_is_read_and_not_made_again(made: Path) -> None:
    assert derived_file(made, refuse).read_bytes() == CONTENT


def test_its_digest_is_one_that_sha256sum_checks(made: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", f"{made.name}.sha256"], cwd=made.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "leaked.npy: OK\n")


@settings(max_examples=40)
@given(place=st.integers(0, 8 * len(CONTENT) - 1))
def test_a_single_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    file = derived_file(tmp_path_factory.mktemp("flip") / "x", writing(CONTENT))
    flipped = bytearray(CONTENT)
    flipped[place // 8] ^= 1 << place % 8
    file.write_bytes(flipped)
    assert not is_intact(file)
    assert derived_file(file, writing(CONTENT)).read_bytes() == CONTENT and is_intact(file)


@pytest.mark.parametrize("digest", [None, b"", b"\xff\xfe", b"0" * 64 + b"  leaked.npy"])
def test_a_file_without_its_digest_is_made_again_with_a_warning(made: Path, digest: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    beside = made.with_name("leaked.npy.sha256")
    beside.unlink() if digest is None else beside.write_bytes(digest)
    with caplog.at_level(logging.WARNING):
        assert derived_file(made, writing(b"new")).read_bytes() == b"new"
    assert f"{made} is not what was written there" in caplog.text


def test_a_missing_file_is_made_without_a_word(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    made.unlink()
    with caplog.at_level(logging.DEBUG):
        assert derived_file(made, writing(b"new")).read_bytes() == b"new"
    assert caplog.text == ""


def test_a_failed_making_leaves_the_file_to_the_next_one(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="made again"):
        derived_file(tmp_path / "x", refuse)
    assert not (tmp_path / "x").exists()
    assert derived_file(tmp_path / "x", writing(CONTENT)).read_bytes() == CONTENT


def test_of_several_threads_one_makes_the_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: need(tmp_path / "x", tmp_path / "calls"), range(4)))
    assert (tmp_path / "calls").read_text() == "made\n"


def test_of_several_processes_one_makes_the_file(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=need, args=(tmp_path / "x", tmp_path / "calls")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "calls").read_text() == "made\n"
