"""A spool keeps values by name on disk, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lvm.data.spool import Spool
from lvm.errors import InputError


def test_spool_leaves_nothing_on_disk_even_when_its_process_is_killed(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from lvm.data.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]) / 'out')\n"
        "spool['x'] = 'a' * 100_000\n"
        "assert spool['x'] and os.fstat(spool._file.fileno()).st_dev == os.stat(sys.argv[1]).st_dev\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, timeout=60, capture_output=True)
    assert ended.returncode == -9, ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_spool_gives_back_what_was_stored_in_any_order(tmp_path):
    spool = Spool(tmp_path / "not" / "there" / "yet")
    values = {"line\nbreak": "a\nb", "naïve — 漢字": ["x", 1], "": {}}
    for name, value in values.items():
        spool[name] = value
    assert [spool[name] for name in reversed(list(spool))] == list(values.values())[::-1]
    assert list(spool) == list(values) and "" in spool and "b" not in spool
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_spool_of_a_dataset_in_a_read_only_folder_lies_above_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder) != tmp_path / "locked")
    (tmp_path / "locked").mkdir()
    spool = Spool(tmp_path / "locked" / "out")
    spool["x"] = 1
    assert spool["x"] == 1
    spool.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_full_disk_is_refused_naming_the_dataset(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "out")
    spool._file.close()
    spool._file = open("/dev/full", "r+b")  # noqa: SIM115
    with pytest.raises(InputError, match=f"no space left to write {tmp_path / 'out'}"):
        for number in range(20):
            spool[str(number)] = "a" * 10_000
    spool.close()
