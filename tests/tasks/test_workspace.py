"""A folder that cannot be written is said in one sentence, before any work."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvm.errors import InputError
from tasks.workspace import Workspace


@pytest.fixture()
def read_only() -> Iterator[Path]:
    """A folder that this process may read and not write; root, who may write anywhere, becomes nobody for the test."""
    folder = Path(tempfile.mkdtemp())
    (folder / "data").mkdir()
    for path in (folder / "data", folder):
        path.chmod(0o555)
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(mine)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_read_only_folder_is_one_clear_sentence(read_only):
    with pytest.raises(InputError) as caught:
        Workspace(root=read_only).require_writable()
    expected = f"folder {read_only}/data cannot be written (Permission denied): make it writable, or give another --root"
    assert str(caught.value) == expected


def test_file_in_the_place_of_a_folder_is_one_clear_sentence(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match=rf"folder {tmp_path}/runs cannot be written \(File exists\)"):
        Workspace(root=tmp_path).require_writable()


def test_writable_folder_is_made_and_left_empty(tmp_path):
    Workspace(root=tmp_path / "new").require_writable()
    assert sorted(path.name for path in (tmp_path / "new").rglob("*")) == ["data", "mlruns", "runs"]
