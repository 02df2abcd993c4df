"""A run repeats bit for bit, survives any kill, learns, stops before it breaks, and says what it does."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from lvm.atomic_io import sha256_file
from lvm.config import TERMS, LossConfig, TrainConfig, train_config
from lvm.data.dataset import Dataset
from lvm.data.windows import make_windows
from lvm.errors import GateRefused, InputError, TrainingDiverged
from lvm.evaluation.evaluate import evaluate_checkpoint, predict
from lvm.gates.training import early_gates
from lvm.models import Prediction
from lvm.models.checkpoint import FILES, load_checkpoint, read_config
from lvm.training import trainer as training
from lvm.training.batches import BatchReader
from lvm.training.losses import weighted
from lvm.training.metrics_log import Event, event_order
from lvm.training.optimizer import gradient_shares
from lvm.training.state import Progress, save_state
from lvm.training.trainer import Trainer, train

CPU = torch.device("cpu")
TINY = (
    "model.width=64",
    "epochs=3",
    "learning_rate=0.003",
    "context_length=3",
    "sampler.stretches=8",
    "sampler.length=32",
)
KILLS = 6


def tiny(dataset: Dataset, *extra: str, arch: str = "lstm") -> TrainConfig:
    return train_config(arch, dataset.dim, [*TINY, *extra])


def trained(dataset: Dataset) -> Path:
    """The tiny model that tests of later stages share; read-only, made once a session."""
    out = dataset.path.with_name(f"{dataset.path.name}-model")
    train(tiny(dataset), dataset, out, CPU, resume=True)
    return out


def events(out: Path) -> list[Event]:
    return [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def what_repeats(out: Path) -> dict[str, Any]:
    """All that a run promises to give again: metrics, weights, golden predictions, configuration, card.

    The bytes of baselines.safetensors and familiarity.safetensors may differ: their headers list the metadata in any order.
    """
    config = read_config(out).model_dump()
    del config["files"]["baselines.safetensors"], config["files"]["familiarity.safetensors"]
    lines = [(event["step"], event["total_steps"], event["epoch"], event["metrics"]) for event in events(out)]
    files = {name: sha256_file(out / name) for name in ("model.safetensors", "golden.safetensors", "card.md")}
    fitted = {name: tensor.tolist() for name, tensor in load_file(out / "baselines.safetensors").items() if name == "mean"}
    return {"metrics": lines, "config": config, **files, **fitted}


class Killed(Exception):
    pass


def killed_after(dataset: Dataset, out: Path, lines: int, config: TrainConfig | None = None) -> None:
    """Leave in `out` a run that died when it had written so many lines of metrics."""
    left = lines

    def die(event: Event) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    with pytest.raises(Killed):
        train(config or tiny(dataset), dataset, out, CPU, on_event=die)


@pytest.fixture(scope="module")
def killed_once(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in its second epoch: about 17 steps an epoch, lines at steps 0, 10, 17 (validation) and 20."""
    out = tmp_path_factory.mktemp("killed") / "run"
    killed_after(dataset, out, 4)
    assert (out / "training" / "state.safetensors").exists()
    return out


@pytest.fixture()
def unfinished(killed_once: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with or to damage."""
    return Path(shutil.copytree(killed_once, tmp_path / "run"))


# Repeating


@pytest.mark.parametrize("arch", ["mamba2", "transformer"])
def test_the_same_seed_gives_the_same_metrics_and_the_same_bytes(dataset: Dataset, tmp_path: Path, arch: str) -> None:
    config = tiny(dataset, "epochs=1", arch=arch)
    for name in ("first", "second"):
        train(config, dataset, tmp_path / name, CPU)
        torch.rand(1)  # whatever the process draws besides must not matter
    assert what_repeats(tmp_path / "first") == what_repeats(tmp_path / "second")


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

        torch.manual_seed(1000 + life)  # nothing of the dead process may help
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
    train(config, dataset, tmp_path / "whole", CPU)
    killed_after(dataset, tmp_path / "killed", 4, config)
    train(config, dataset, tmp_path / "killed", CPU, resume=True)
    assert what_repeats(tmp_path / "killed") == what_repeats(tmp_path / "whole")


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


# Starting, resuming, starting over


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


# Input that cannot be trained on


def test_dimension_of_another_encoder_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'model\.dim' is 768, the dataset's embeddings have 384"):
        train(train_config("lstm", 768), dataset, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_dataset_without_training_documents_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    only = replace(dataset, doc_splits=np.full(len(dataset.doc_ids), "test", object), path=tmp_path / "data")
    with pytest.raises(InputError, match=r"split 'train' .* is empty: give more documents"):
        train(tiny(dataset), only, tmp_path / "run", CPU)


def test_loss_without_any_weight_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    nothing = [f"loss.{name}=0" for name in ("regression", "norm", "infonce", "moments", "variance", "mse")]
    with pytest.raises(InputError, match=r"every loss weight is 0: give one of loss\.regression, .*loss\.mse a value"):
        train(tiny(dataset, *nothing), dataset, tmp_path / "run", CPU)


# Learning


def test_lstm_overfits_a_thousand_windows(dataset: Dataset, tmp_path: Path) -> None:
    # The first training documents that hold a thousand chunks with five before them; val and test as they are.
    documents = dataset.docs("train")
    enough = np.searchsorted(np.cumsum(np.maximum(np.diff(dataset.starts)[documents] - 5, 0)), 1000)
    splits = dataset.doc_splits.copy()
    splits[documents[enough + 1 :]] = "unused"
    view = replace(dataset, doc_splits=splits, path=tmp_path / "view")
    windows = make_windows(view, "train", 5, 10**6, CPU)
    assert 950 <= len(windows.answer) <= 1150
    targets = torch.from_numpy(view.vectors[windows.targets])

    regression_only = [f"loss.{name}=0" for name in ("norm", "infonce", "moments", "variance")]
    config = train_config(
        "lstm", dataset.dim,
        ["model.width=256", "model.dropout=0", "epochs=32", "learning_rate=0.005", "weight_decay=0", "patience=1000", "context_length=2",
         "eval_windows=100", "sampler.stretches=8", "sampler.length=16", "sampler.hard_negatives=0", *regression_only],
    )  # fmt: skip
    found = []

    def measure(event: Event) -> None:
        if event["step"] in (0, event["total_steps"]):
            y_dec, _ = predict(trainer.model, view, windows, CPU)
            found.append(float(F.cosine_similarity(y_dec, targets).mean()))
            trainer.model.train()

    trainer = Trainer(config, view, tmp_path / "run", CPU, measure)
    trainer.run()
    before, after = found
    assert before < 0.5
    assert after >= 0.9


def test_training_raises_the_cosine_over_the_lag_weights_it_starts_from(dataset: Dataset) -> None:
    history = load_checkpoint(trained(dataset), CPU).config.history
    regression = [event["metrics"]["train/loss_regression"] for event in events(trained(dataset)) if "train/loss" in event["metrics"]]
    assert regression[-1] < regression[0] - 0.03
    assert max(epoch["val/cosine"] for epoch in history) > 0.43


def test_exported_model_scores_what_its_best_epoch_scored(dataset: Dataset) -> None:
    checkpoint = load_checkpoint(trained(dataset), CPU)
    best, history = checkpoint.config.best, checkpoint.config.history
    assert [int(epoch["epoch"]) for epoch in history] == list(range(len(history)))
    assert best == max(history, key=lambda epoch: epoch["val/selection"])
    for epoch in history:
        assert epoch["val/selection"] == epoch["val/skill_cosine"] + 0.5 * epoch["val/skill_recall_at_5"]
    found = evaluate_checkpoint(dataset, checkpoint, "val").values()
    assert {name: best[f"val/{name}"] for name in found} == pytest.approx(found, abs=1e-6)
    others = [epoch for epoch in history if epoch is not best and epoch != best]
    assert others and all(abs(epoch["val/cosine"] - found["cosine"]) > 1e-5 for epoch in others)


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best(dataset: Dataset, tmp_path: Path) -> None:
    # A rate at which the average gets worse after an epoch or two.
    config = tiny(dataset, "epochs=30", "patience=2", "learning_rate=0.05", "warmup=0", "average=0.5")
    done = train(config, dataset, tmp_path / "run", CPU)
    scores = [epoch["val/selection"] for epoch in done.history]
    best = int(np.argmax(scores))
    assert len(scores) == best + 1 + 2 < 30
    assert done.best["epoch"] == best
    assert events(tmp_path / "run")[-1]["metrics"]["best/selection"] == scores[best]
    assert events(tmp_path / "run")[-1]["metrics"]["val/selection"] == scores[-1]


def test_what_is_kept_is_the_moving_average_of_the_weights(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    trainer = Trainer(tiny(dataset, "average=0.4"), dataset, tmp_path, CPU)
    expected = [weight.detach().clone() for weight in trainer.weights]
    checked = []

    def follow(event: Event) -> None:
        step = event["step"]
        decay = min(0.4, (1 + step) / (10 + step))  # short at first, so that the random start is soon forgotten
        for average, mean, weight in zip(trainer.average, expected, trainer.weights, strict=True):
            mean.mul_(decay).add_(weight.detach(), alpha=1 - decay)
            torch.testing.assert_close(average, mean)
        checked.append(decay)
        if step == 12:
            raise Killed

    trainer.on_event = follow
    with pytest.raises(Killed):
        trainer.run()
    assert checked[0] == 0.1 and checked[-1] == 0.4


def test_validation_leaves_the_weights_in_training_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(tiny(dataset), dataset, tmp_path, CPU)
    with torch.no_grad():
        for average in trainer.average:
            average += 1
    before = [weight.clone() for weight in trainer.weights]
    trainer.evaluate_average()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.weights, strict=True))


# Stopping before it breaks


def test_non_finite_loss_stops_before_the_update_and_names_the_last_good_step(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    weights: list[list[torch.Tensor]] = []
    trainer = Trainer(
        tiny(dataset), dataset, tmp_path, CPU, lambda event: weights.append([weight.detach().clone() for weight in trainer.weights])
    )
    seen = [set(batch.rows.ravel()) | set(batch.negatives.ravel()) for batch in trainer.sampler.epoch(0)]
    step = 5
    row = min(seen[step].difference(*seen[:step]))
    vectors = np.array(dataset.vectors)
    vectors[row, 0] = np.inf
    trainer.read = BatchReader(replace(dataset, vectors=vectors), CPU)
    with pytest.raises(TrainingDiverged, match=rf"at step {step}; the last good step is {step - 1}\. Lower learning_rate"):
        trainer.run()
    assert len(weights) == step
    for now, after_last_good_step in zip(trainer.weights, weights[-1], strict=True):
        assert torch.isfinite(now).all()
        assert torch.equal(now, after_last_good_step)
    assert [event["step"] for event in map(json.loads, (tmp_path / "training" / "metrics.jsonl").read_text().splitlines())] == list(
        range(step)
    )


def test_absurd_learning_rate_is_stopped_with_finite_weights(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(tiny(dataset, "learning_rate=1e30", "warmup=0"), dataset, tmp_path, CPU)
    with pytest.raises(TrainingDiverged, match="the last good step is 0"):
        trainer.run()
    assert all(torch.isfinite(weight).all() for weight in trainer.weights)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_loss_that_was_never_finite_says_so(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(tiny(dataset), dataset, tmp_path, CPU)
    nn.init.constant_(trainer.model.decoder_lags.weight, math.inf)
    with pytest.raises(TrainingDiverged, match="at step 0; no step was good"):
        trainer.run()


# Stopping what would be in vain


def without_a_gradient(name: str) -> Callable[..., dict[str, torch.Tensor]]:
    """The weighted terms, of which one has a weight that does not arrive."""

    def make(terms: dict[str, torch.Tensor], config: LossConfig) -> dict[str, torch.Tensor]:
        return {n: part * (n != name) for n, part in weighted(terms, config).items()}

    return make


@pytest.mark.parametrize(
    ("stretches", "steps"), [(8, "at step 0: "), (2, "at step 0 and step 50: ")], ids=["under fifty steps", "over fifty steps"]
)
def test_term_that_steers_nothing_stops_a_run_after_its_first_epoch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretches: int, steps: str
) -> None:
    monkeypatch.setattr("lvm.training.gradcache.weighted", without_a_gradient("infonce"))
    config = tiny(dataset, "epochs=2", f"sampler.stretches={stretches}")
    for resume in (False, True):
        with pytest.raises(GateRefused, match=rf"loss_balance: .*{steps}.*infonce 0.*No gradient of infonce.*switch it off by 0") as caught:
            train(config, dataset, tmp_path / "run", CPU, resume=resume)
        assert "collapse" not in str(caught.value)
        assert [line["epoch"] for line in events(tmp_path / "run") if "val/cosine" in line["metrics"]] == [0]
        assert not (tmp_path / "run" / "config.json").exists(), "nothing that a later stage would take for a model"


def test_run_is_not_judged_by_step_0_alone_while_step_50_is_to_come(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(tiny(dataset), dataset, tmp_path / "run", CPU)  # 17 steps an epoch, 51 in all
    found = trainer.evaluate_average()
    silent = {f"train/gradient_share_{name}": 0.0 for name in TERMS}
    measured = [{"step": 0.0, **silent}]
    assert trainer.total_steps > 50
    assert [gate.name for gate in early_gates(trainer.config.loss, 0, trainer.total_steps, measured, found)] == ["collapse"]
    assert early_gates(trainer.config.loss, 1, trainer.total_steps, measured, found) == []
    (balance,) = early_gates(trainer.config.loss, 2, trainer.total_steps, [*measured, {"step": 50.0, **silent}], found)
    assert (balance.name, balance.passed) == ("loss_balance", False)


@pytest.mark.parametrize("head", ["decoder", "cosine"])
def test_outputs_that_are_one_vector_stop_a_run_after_its_first_epoch(dataset: Dataset, tmp_path: Path, head: str) -> None:
    def one_vector(model: nn.Module, inputs: Any, outputs: tuple[torch.Tensor, torch.Tensor]) -> Prediction:
        found = Prediction(*outputs)
        return found._replace(**{head: F.normalize(1 + 0.01 * getattr(found, head), dim=-1)})

    trainer = Trainer(tiny(dataset), dataset, tmp_path / "run", CPU)
    trainer.model.register_forward_hook(one_vector)
    with pytest.raises(GateRefused, match=r"^collapse: .*nearly one vector: check the loss weights and the learning rate$"):
        trainer.run()
    assert [line["epoch"] for line in events(tmp_path / "run") if "val/cosine" in line["metrics"]] == [0]
    assert not (tmp_path / "run" / "config.json").exists()


# Settings


def test_settings_are_laid_over_the_defaults() -> None:
    config = train_config("gru", 384, ["model.width=512", "learning_rate=2e-4", "sampler.anchors_per_document=null", "loss.norm=0"])
    assert (config.model.arch, config.model.dim, config.model.width) == ("gru", 384, 512)
    assert (config.learning_rate, config.sampler.anchors_per_document, config.loss.norm) == (2e-4, None, 0)
    default = train_config("gru", 384)
    assert config == default.model_copy(
        update={
            "model": default.model.model_copy(update={"width": 512}),
            "loss": default.loss.model_copy(update={"norm": 0.0}),
            "learning_rate": 2e-4,
        }
    )


def test_the_last_of_two_settings_of_one_field_counts() -> None:
    assert train_config("lstm", 8, ["epochs=3", "epochs=5"]).epochs == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "setting 'epochs': expected FIELD=VALUE"),
        ("epochs=0", "field 'epochs': .*greater than or equal to 1"),
        ("epochs=many", "field 'epochs': .*valid integer"),
        ("epochs=1.5", "field 'epochs': .*integer"),
        ("epoch=3", r"unknown field 'epoch' \(known: model, loss, .*epochs"),
        ("model.widht=512", r"unknown field 'model\.widht' \(known: arch, dim, width"),
        ("loss.infonse=1", r"unknown field 'loss\.infonse' \(known: regression, norm"),
        ("model.width=100", r"field 'model\.width': .*multiple of 64"),
        ("loss.infonce=-1", r"field 'loss\.infonce': .*greater than or equal to 0"),
        ("model.arch=lstmm", r"field 'model\.arch': .*'lstm'"),
        ("model.arch.size=3", "setting 'model.arch.size=3': 'arch' is a value, not a group of fields"),
        ("model=5", "field 'model': "),
        ("learning_rate=NaN", "field 'learning_rate'"),
    ],
)
def test_bad_setting_is_refused_by_name(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_config("lstm", 384, [setting])


# Gradient shares


def test_gradient_shares_are_norms_over_the_largest() -> None:
    weight, other = nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.tensor(1.0))
    parts = {"small": 0.5 * weight.sum(), "large": (weight**2).sum(), "elsewhere": 2 * other, "none": 0 * other}
    shares = gradient_shares(parts, [weight, other])
    # Norms: 0.5 * sqrt(2), 2 * 5, 2, 0.
    assert shares == pytest.approx(
        {
            "train/gradient_share_small": 0.5 * math.sqrt(2) / 10,
            "train/gradient_share_large": 1.0,
            "train/gradient_share_elsewhere": 0.2,
            "train/gradient_share_none": 0.0,
        }
    )
    assert weight.grad is None, "measuring leaves no gradient behind"


def test_terms_without_a_weight_are_neither_computed_nor_reported(dataset: Dataset, tmp_path: Path) -> None:
    killed_after(dataset, tmp_path / "run", 1, tiny(dataset, "loss.infonce=0", "loss.variance=0"))
    (first,) = events(tmp_path / "run")
    shares = {name: value for name, value in first["metrics"].items() if name.startswith("train/gradient_share_")}
    losses = {name for name in first["metrics"] if name.startswith("train/loss_")}
    assert set(shares) == {f"train/gradient_share_{name}" for name in ("regression", "norm", "moments")}
    assert losses == {f"train/loss_{name}" for name in ("regression", "norm", "moments")}
    assert max(shares.values()) == 1 and min(shares.values()) > 0


# What a run says


def test_every_promised_metric_is_written(dataset: Dataset) -> None:
    lines = events(trained(dataset))
    terms = ("regression", "norm", "infonce", "moments", "variance")
    quantities = (
        "cosine",
        "recall_at_5",
        "skill_cosine",
        "skill_recall_at_5",
        "sigma_ratio",
        "effective_rank",
        "pairwise_cosine",
        "shuffle_drop",
    )
    steps = [line for line in lines if "train/loss" in line["metrics"]]
    epochs = [line for line in lines if "val/cosine" in line["metrics"]]
    assert len(steps) + len(epochs) == len(lines)
    assert [line["epoch"] for line in epochs] == [0, 1, 2]
    assert [line["step"] for line in steps] == list(range(0, lines[-1]["total_steps"], training.LOG_EVERY))
    for line in steps:
        metrics = line["metrics"]
        assert {f"train/loss_{term}" for term in terms} | {"train/gradient_norm", "train/learning_rate"} <= set(metrics)
        weights = tiny(dataset).loss
        assert metrics["train/loss"] == pytest.approx(
            sum(getattr(weights, term) * metrics[f"train/loss_{term}"] for term in terms), rel=1e-5
        )
    shares = [steps[0]["metrics"][f"train/gradient_share_{term}"] for term in terms]
    assert max(shares) == 1 and min(shares) >= 0
    best: dict[str, float] = {}
    for line in epochs:
        metrics = line["metrics"]
        assert {f"{split}/{quantity}" for split in ("val", "best") for quantity in quantities} <= set(metrics)
        if not best or metrics["val/selection"] > best["selection"]:
            best = {name.removeprefix("val/"): value for name, value in metrics.items() if name.startswith("val/")}
            best |= {"epoch": line["epoch"], "step": line["step"]}
        assert {name.removeprefix("best/"): value for name, value in metrics.items() if name.startswith("best/")} == best
    for line in lines:
        assert all(math.isfinite(value) for value in line["metrics"].values())
        assert "@" not in "".join(line["metrics"])
        assert line["timing"]["system/chunks_per_second"] > 0
        assert line["timing"]["system/eta_seconds"] >= 0
    assert lines[-1]["step"] == lines[-1]["total_steps"]
    assert lines[-1]["timing"]["system/eta_seconds"] == 0


def test_gradient_shares_are_logged_at_the_first_step_and_at_step_fifty(dataset: Dataset, tmp_path: Path) -> None:
    killed_after(dataset, tmp_path / "run", 8, tiny(dataset, "sampler.stretches=2"))
    lines = events(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 10, 20, 30, 40, 50, 60, 70]
    assert [line["step"] for line in lines if "train/gradient_share_regression" in line["metrics"]] == [0, 50]


def test_the_model_keeps_the_gradient_shares_that_its_training_logged(dataset: Dataset) -> None:
    out = trained(dataset)
    logged = [line for line in events(out) if "train/gradient_share_regression" in line["metrics"]]
    wanted = {f"train/{kind}_{term}" for kind in ("gradient_share", "loss") for term in TERMS if term != "mse"}
    kept = read_config(out).gradient_shares
    assert kept == [{"step": line["step"], **{name: line["metrics"][name] for name in wanted}} for line in logged]
    assert [line["step"] for line in kept] == [0, 50]


def test_a_listener_hears_every_line_in_order_after_it_was_written(dataset: Dataset, tmp_path: Path) -> None:
    heard = []

    def listen(event: Event) -> None:
        heard.append(event)
        assert events(tmp_path / "run") == heard

    train(tiny(dataset, "epochs=1"), dataset, tmp_path / "run", CPU, on_event=listen)
    assert heard == events(tmp_path / "run")
    assert [event_order(event) for event in heard] == sorted(event_order(event) for event in heard)
