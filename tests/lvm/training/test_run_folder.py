"""A run is started, resumed or kept only when that is asked for, and `fresh` deletes nothing but a run."""

from pathlib import Path

import pytest

from lvm.errors import InputError
from lvm.training.distributed import Ranks
from lvm.training.run_folder import prepare_run_folder


def prepare(out: Path, resume: bool = False, fresh: bool = False, mine: str = "mine", rank: int = 0) -> str | None:
    """Prepare `out` for a run whose configuration is the text `mine`."""
    return prepare_run_folder(
        out, ["weights"], lambda folder: (folder / "config.json").read_text(), mine.__eq__, resume, fresh, Ranks(rank, 1)
    )


@pytest.fixture()
def unfinished(tmp_path: Path) -> Path:
    (tmp_path / "run" / "training").mkdir(parents=True)
    (tmp_path / "run" / "training" / "state").write_text("state")
    return tmp_path / "run"


@pytest.fixture()
def finished(unfinished: Path) -> Path:
    (unfinished / "weights").write_text("weights")
    (unfinished / "config.json").write_text("mine")
    return unfinished


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"fresh": True}], ids=["new", "resume", "fresh"])
def test_a_run_starts_in_a_folder_that_holds_none(tmp_path: Path, how: dict[str, bool]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert prepare(tmp_path, **how) is None
    assert prepare(tmp_path / "not there yet", **how) is None
    assert files(tmp_path) == {"notes.txt"}


def test_resume_continues_an_unfinished_run_and_keeps_a_finished_one(unfinished: Path) -> None:
    assert prepare(unfinished, resume=True) is None and files(unfinished) == {"training/state"}
    (unfinished / "config.json").write_text("mine")
    assert prepare(unfinished, resume=True) == "mine"


def test_fresh_deletes_the_run_and_no_other_file(finished: Path) -> None:
    (finished / "notes.txt").write_text("mine")
    assert prepare(finished, fresh=True) is None
    assert files(finished) == {"notes.txt"}


def test_a_run_is_neither_overwritten_nor_taken_for_another(finished: Path) -> None:
    before = files(finished)
    with pytest.raises(InputError, match="holds a run already: give --resume to go on, --fresh to start over, or another --out"):
        prepare(finished)
    with pytest.raises(InputError, match="--resume and --fresh exclude each other"):
        prepare(finished, resume=True, fresh=True)
    with pytest.raises(InputError, match="run with another configuration or dataset: give --fresh or another --out"):
        prepare(finished, resume=True, mine="another")
    (finished / "config.json").unlink()
    with pytest.raises(InputError, match="holds a run already"):
        prepare(finished)
    assert files(finished) == before - {"config.json"}


def test_only_the_first_process_deletes(unfinished: Path) -> None:
    with pytest.raises(InputError, match="holds a run already"):
        prepare(unfinished, fresh=True, rank=1)
    assert files(unfinished) == {"training/state"}
