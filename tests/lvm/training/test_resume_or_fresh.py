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
from tests.support.trainings import CPU, killed_after, tiny, trained, what_repeats


def test_finished_run_is_resumed_at_once_and_left_as_it_is(dataset: Dataset) -> None:
    out = trained(dataset)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}

    def never(event: Event) -> None:
        raise AssertionError("trained again")

    config = train(tiny(dataset), dataset, out, CPU, resume=True, on_event=never)
    assert config.train == tiny(dataset)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_run_killed_before_its_first_state_starts_over_on_resume(dataset: Dataset, tmp_path: Path) -> None:
    # A run that was never begun does too: that is how the shared model was trained.
    killed_after(dataset, tmp_path / "run", 2)
    assert not (tmp_path / "run" / "training" / "state.safetensors").exists()
    train(tiny(dataset), dataset, tmp_path / "run", CPU, resume=True)
    assert what_repeats(tmp_path / "run") == what_repeats(trained(dataset))


def test_fresh_starts_over_and_deletes_no_file_that_is_not_the_runs(dataset: Dataset, unfinished: Path) -> None:
    (unfinished / "notes.txt").write_text("two years of work")
    (unfinished / "model.safetensors").write_text("of an earlier run")
    steps: list[int] = []

    def follow(event: Event) -> None:
        if not steps:
            assert not (unfinished / "model.safetensors").exists()
            assert not (unfinished / "training" / "state.safetensors").exists()
        steps.append(event["step"])

    train(tiny(dataset), dataset, unfinished, CPU, fresh=True, on_event=follow)
    assert steps[0] == 0
    assert (unfinished / "notes.txt").read_text() == "two years of work"
    assert what_repeats(unfinished) == what_repeats(trained(dataset))


def what_is_there(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("finished", "change"),
    [(False, "configuration"), (False, "threads"), (False, "dataset"), (True, "configuration"), (True, "dataset")],
)
def test_resume_with_another_configuration_or_dataset_is_refused(dataset: Dataset, unfinished: Path, finished: bool, change: str) -> None:
    out = trained(dataset) if finished else unfinished
    before = what_is_there(out)
    config, data = tiny(dataset), dataset
    if change == "dataset":
        data = replace(dataset, manifest=dataset.manifest.model_copy(update={"key": "another"}), path=unfinished.parent / "data")
        for file in (dataset.path / "derived").glob("[!.]*"):  # what was fitted already need not be fitted again
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
