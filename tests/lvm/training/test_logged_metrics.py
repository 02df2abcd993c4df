"""A run logs all that it promises, and the model keeps what later stages read of it."""

import math
from pathlib import Path

import pytest

from lvm.config import LOSS_TERMS
from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import SKILLS
from lvm.models.checkpoint import read_config
from lvm.training import trainer as training
from lvm.training.metrics_log import Event, event_order
from lvm.training.trainer import train
from tests.support.trainings import CPU, events, killed_after, tiny, trained


def test_terms_without_a_weight_are_neither_computed_nor_reported(dataset: Dataset, tmp_path: Path) -> None:
    killed_after(dataset, tmp_path / "run", 1, tiny(dataset, "loss.infonce=0", "loss.variance=0"))
    (first,) = events(tmp_path / "run")
    shares = {name: value for name, value in first["metrics"].items() if name.startswith("train/gradient_share_")}
    losses = {name for name in first["metrics"] if name.startswith("train/loss_")}
    assert set(shares) == {f"train/gradient_share_{name}" for name in ("regression", "norm", "moments")}
    assert losses == {f"train/loss_{name}" for name in ("regression", "norm", "moments")}
    assert max(shares.values()) == 1 and min(shares.values()) > 0


def test_every_promised_metric_is_written(dataset: Dataset) -> None:
    lines = events(trained(dataset))
    terms = ("regression", "norm", "infonce", "moments", "variance")
    quantities = (
        *SKILLS,
        *(f"skill_{metric}" for metric in SKILLS),
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
    wanted = {f"train/{kind}_{term}" for kind in ("gradient_share", "loss") for term in LOSS_TERMS if term != "mse"}
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
