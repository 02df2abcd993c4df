"""The same seed gives the same bytes, and a run that was killed anywhere ends as if it had not been."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lvm.data.dataset import Dataset
from lvm.errors import InputError
from lvm.models.checkpoint import FILES
from lvm.training import trainer as training
from lvm.training.metrics_log import Event
from lvm.training.state import Progress, save_state
from lvm.training.trainer import Trainer, train
from tests.support.trainings import CPU, TINY, Killed, events, killed_after, tiny, train_once, trained, what_repeats

KILLS = 4


@pytest.mark.parametrize("arch", ["mamba2", "transformer"])
def test_the_same_seed_gives_the_same_metrics_and_the_same_bytes(dataset: Dataset, tmp_path: Path, arch: str) -> None:
    config = tiny(dataset, "epochs=1", arch=arch)
    first = train_once(dataset, config)
    torch.rand(1)  # whatever else the process draws must not matter
    train(config, dataset, tmp_path / "second", CPU)
    assert what_repeats(tmp_path / "second") == what_repeats(first)


def test_another_seed_gives_another_model(dataset: Dataset, tmp_path: Path) -> None:
    for seed in (0, 1):
        killed_after(dataset, tmp_path / str(seed), 2, tiny(dataset, f"seed={seed}"))
    for first, second in zip(events(tmp_path / "0"), events(tmp_path / "1"), strict=True):
        assert first["metrics"]["train/loss"] != second["metrics"]["train/loss"]


@pytest.mark.parametrize("arch", ["lstm", pytest.param("transformer", marks=pytest.mark.slow)])
def test_killed_trainer_resumes_with_identical_loss(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)  # any step may be the last
    config = tiny(dataset, arch=arch)
    train(config, dataset, tmp_path / "whole", CPU)
    dice = random.Random(1)
    deaths, begun = [], []
    for life in count():
        left = dice.randint(1, 20)

        def die(event: Event) -> None:
            nonlocal left
            left -= 1
            # A state after this step, or not: deaths then fall at any distance from the last one.
            monkeypatch.setattr(training, "SAVE_SECONDS", 0 if dice.random() < 0.25 else math.inf)
            if not left:
                deaths.append("validation" if "val/cosine" in event["metrics"] else "step")
                raise Killed

        torch.manual_seed(1000 + life)  # the random state of the killed process is lost
        trainer = Trainer(config, dataset, tmp_path / "killed", CPU, die)
        trainer.resume()
        begun.append((trainer.progress.epoch, trainer.progress.epoch_step))
        try:
            trainer.run()
            break
        except Killed:
            pass
    assert len(deaths) >= 5 and set(deaths) == {"validation", "step"}, deaths
    assert any(epoch > 0 and step > 0 for epoch, step in begun), "some life began within an epoch"
    assert what_repeats(tmp_path / "killed") == what_repeats(tmp_path / "whole")


def test_run_killed_between_a_validation_and_its_state_reports_it_once(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    killed_after(dataset, tmp_path / "run", 3)
    assert "val/cosine" in events(tmp_path / "run")[-1]["metrics"]
    monkeypatch.undo()
    train(tiny(dataset), dataset, tmp_path / "run", CPU, resume=True)
    assert what_repeats(tmp_path / "run") == what_repeats(trained(dataset))


def test_a_state_that_takes_long_to_write_is_written_less_often_and_resumes_all_the_same(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def slow(file: Path, key: str, progress: Progress, *rest: Any) -> None:
        time.sleep(1)
        save_state(file, key, progress, *rest)
        written.append(progress.epoch)

    monkeypatch.setattr(training, "save_state", slow)
    monkeypatch.setattr(training, "QUICK_SAVE", 0.5)
    killed_after(dataset, tmp_path / "run", len(events(trained(dataset))))
    assert written == [1]
    monkeypatch.undo()
    train(tiny(dataset), dataset, tmp_path / "run", CPU, resume=True)
    assert what_repeats(tmp_path / "run") == what_repeats(trained(dataset))


@pytest.mark.parametrize("name", ["config.json", *FILES])
def test_run_killed_during_its_export_exports_the_same_again(dataset: Dataset, tmp_path: Path, name: str) -> None:
    whole = trained(dataset)
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()  # written last
    (tmp_path / "run" / name).unlink(missing_ok=True)
    train(tiny(dataset), dataset, tmp_path / "run", CPU, resume=True)
    assert what_repeats(tmp_path / "run") == what_repeats(whole)


def test_run_whose_loss_reaches_one_head_alone_resumes_too(dataset: Dataset, tmp_path: Path) -> None:
    config = tiny(dataset, "epochs=2", "loss.infonce=0", "loss.variance=0")  # nothing trains y_cos
    killed_after(dataset, tmp_path / "killed", 4, config)
    train(config, dataset, tmp_path / "killed", CPU, resume=True)
    assert what_repeats(tmp_path / "killed") == what_repeats(train_once(dataset, config))


def test_line_of_metrics_that_a_kill_cut_short_is_written_again(dataset: Dataset, unfinished: Path) -> None:
    file = unfinished / "training" / "metrics.jsonl"
    with file.open("a", encoding="utf-8") as lines:
        lines.write('{"step": 30, "total_st')
    train(tiny(dataset), dataset, unfinished, CPU, resume=True)
    assert what_repeats(unfinished) == what_repeats(trained(dataset))


@pytest.mark.slow
def test_sigkilled_trainer_process_resumes_bit_for_bit(dataset: Dataset, tmp_path: Path) -> None:
    plain = ["-m", "lvm"]
    often = ["-c", "import lvm.training.trainer as t; t.SAVE_SECONDS = 0.1; from lvm.cli.main import main; main()"]
    arguments = ["train", str(dataset.path), "--arch", "lstm", "--device", "cpu", "--epochs", "4"]
    arguments += [f"--set={setting}" for setting in (*TINY, "sampler.stretches=2", "threads=1") if not setting.startswith("epochs")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}

    def start(program: list[str], out: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, *program, *arguments, "--out", str(tmp_path / out), *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def lines(out: str) -> int:
        file = tmp_path / out / "training" / "metrics.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    whole = start(plain, "whole")
    assert whole.communicate(timeout=300) and whole.returncode == 0
    killed, saved = 0, set()
    for life, moment in enumerate(sorted(random.Random().sample(range(1, lines("whole") * 3 // 4), KILLS))):
        process = start(often if life % 2 else plain, "killed", "--resume")
        deadline = time.monotonic() + 120
        while lines("killed") < moment and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        words = process.communicate()[1]
        assert process.returncode in (0, -signal.SIGKILL), words.decode()
        killed += process.returncode != 0
        state = tmp_path / "killed" / "training" / "state.safetensors"
        if state.exists():
            with safe_open(state, "pt") as file:
                saved.add(json.loads(file.metadata()["progress"])["step"])
    last = start(plain, "killed", "--resume")
    words = last.communicate(timeout=300)[1]
    assert last.returncode == 0, words.decode()
    assert killed >= 3 and len(saved) >= 2, "the kills fell on different places of the run"
    assert what_repeats(tmp_path / "killed") == what_repeats(tmp_path / "whole")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def scribble(file: Path) -> None:
    file.write_bytes(b"\xff" * 5000)


def strip_metadata(file: Path) -> None:
    save_file(load_file(file), file)


def lose_a_tensor(file: Path) -> None:
    with safe_open(file, "pt") as state:
        metadata = state.metadata()
    tensors = load_file(file)
    del tensors["average.0"]
    save_file(tensors, file, metadata)


def change_a_shape(file: Path) -> None:
    with safe_open(file, "pt") as state:
        metadata = state.metadata()
    save_file(load_file(file) | {"weight.0": torch.zeros(3)}, file, metadata)


@pytest.mark.parametrize("damage", [cut, empty, scribble, strip_metadata, lose_a_tensor, change_a_shape])
def test_damaged_state_is_refused_by_name_with_the_remedy(dataset: Dataset, unfinished: Path, damage: Any) -> None:
    damage(unfinished / "training" / "state.safetensors")
    with pytest.raises(InputError, match=r"state\.safetensors is truncated or altered .*: give --fresh"):
        train(tiny(dataset), dataset, unfinished, CPU, resume=True)


def test_state_without_its_metrics_is_refused_with_the_remedy(dataset: Dataset, unfinished: Path) -> None:
    (unfinished / "training" / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=r"metrics\.jsonl is missing.*--fresh"):
        train(tiny(dataset), dataset, unfinished, CPU, resume=True)
