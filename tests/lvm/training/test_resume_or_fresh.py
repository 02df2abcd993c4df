"""A folder that holds a run is resumed, started over, or left as it is."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.errors import InputError
from lvm.training.metrics_log import Event
from lvm.training.trainer import train
from tests.support.trainings import CPU, Killed, killed_after, tiny, trained, what_repeats


def test_finished_run_is_resumed_at_once_and_left_as_it_is(dataset: Dataset) -> None:
    out = trained(dataset)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}

    def never(event: Event) -> None:
        raise AssertionError("trained again")

    config = train(tiny(dataset), dataset, out, CPU, resume=True, on_event=never)
    assert config.train == tiny(dataset)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_run_killed_before_its_first_state_starts_over_on_resume(dataset: Dataset, tmp_path: Path) -> None:
    # As does one that was never begun: that is how the shared model was made.
    killed_after(dataset, tmp_path / "run", 2)
    assert not (tmp_path / "run" / "training" / "state.safetensors").exists()
    train(tiny(dataset), dataset, tmp_path / "run", CPU, resume=True)
    assert what_repeats(tmp_path / "run") == what_repeats(trained(dataset))


def test_fresh_starts_over(dataset: Dataset, unfinished: Path) -> None:
    first = []
    train(tiny(dataset), dataset, unfinished, CPU, fresh=True, on_event=first.append)
    assert first[0]["step"] == 0
    assert what_repeats(unfinished) == what_repeats(trained(dataset))


def test_fresh_deletes_no_file_that_is_not_the_runs(dataset: Dataset, unfinished: Path) -> None:
    (unfinished / "notes").mkdir()
    (unfinished / "notes" / "thesis.txt").write_text("two years")
    (unfinished / "model.safetensors").write_text("of an earlier run")
    killed_after(dataset, unfinished.parent / "other", 1)
    with pytest.raises(Killed):
        train(tiny(dataset), dataset, unfinished, CPU, fresh=True, on_event=raise_killed)
    assert (unfinished / "notes" / "thesis.txt").read_text() == "two years"
    assert not (unfinished / "model.safetensors").exists()
    assert not (unfinished / "training" / "state.safetensors").exists()


def raise_killed(event: Event) -> None:
    raise Killed


@pytest.mark.parametrize("finished", [False, True])
def test_neither_resume_nor_fresh_refuses_a_folder_that_holds_a_run(dataset: Dataset, unfinished: Path, finished: bool) -> None:
    out = trained(dataset) if finished else unfinished
    before = what_is_there(out)
    with pytest.raises(InputError, match=r"--resume .* --fresh .* another --out"):
        train(tiny(dataset), dataset, out, CPU)
    assert what_is_there(out) == before


def what_is_there(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_resume_and_fresh_together_are_refused_and_clear_nothing(dataset: Dataset, unfinished: Path) -> None:
    before = what_is_there(unfinished)
    with pytest.raises(InputError, match="--resume and --fresh exclude each other"):
        train(tiny(dataset), dataset, unfinished, CPU, resume=True, fresh=True)
    assert what_is_there(unfinished) == before


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", ["configuration", "threads", "dataset"])
def test_resume_with_another_configuration_or_dataset_is_refused(dataset: Dataset, unfinished: Path, finished: bool, change: str) -> None:
    out = trained(dataset) if finished else unfinished
    before = what_is_there(out)
    config, data = tiny(dataset), dataset
    if change == "dataset":
        data = replace(dataset, manifest=dataset.manifest.model_copy(update={"key": "another"}), path=unfinished.parent / "data")
        for file in (dataset.path / "derived").iterdir():  # what was fitted already need not be fitted again
            mine = data.path / "derived" / file.name.replace(dataset.manifest.digest[:12], data.manifest.digest[:12])
            mine.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, mine)
    else:
        config = tiny(dataset, "threads=2" if change == "threads" else "loss.temperature=0.05")
    try:
        with pytest.raises(InputError, match="another configuration or dataset: give --fresh or another --out"):
            train(config, data, out, CPU, resume=True)
    finally:
        torch.set_num_threads(1)
    assert what_is_there(out) == before
