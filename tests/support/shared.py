"""What is made once for all test processes: one of them makes it, the others wait for it and read it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of this pytest session see; pytest-xdist gives each process a folder below it.

    With LVM_TESTS_SHARED, all sessions see the same: mutation testing starts hundreds of them.
    """
    if "LVM_TESTS_SHARED" in os.environ:
        return Path(os.environ["LVM_TESTS_SHARED"])
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock on `path`, so that only one process makes what is to be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield
