"""A tiny training, the model that it gives, and what to look for in its folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lvm.atomic_io import digest_json, sha256_file
from lvm.config import LossConfig, TrainConfig, train_config
from lvm.data.dataset import Dataset
from lvm.models.checkpoint import FILES, read_config
from lvm.training.losses import weighted
from lvm.training.metrics_log import Event
from lvm.training.trainer import train
from tests.support.shared import one_at_a_time

CPU = torch.device("cpu")
TINY = (
    "model.width=64",
    "epochs=3",
    "learning_rate=0.003",
    "context_length=3",
    "sampler.stretches=8",
    "sampler.length=32",
)


def tiny(dataset: Dataset, *extra: str, arch: str = "lstm") -> TrainConfig:
    """A training of a few seconds, with further settings laid over it."""
    return train_config(arch, dataset.dim, [*TINY, *extra])


def trained(dataset: Dataset) -> Path:
    """The tiny model that tests of later stages share; read-only."""
    return train_once(dataset, tiny(dataset))


def train_once(dataset: Dataset, config: TrainConfig) -> Path:
    """The model of `config` on a shared dataset; read-only, trained once for all test processes."""
    out = dataset.path.with_name(f"{config.model.arch}-{digest_json(config.model_dump())[:12]}")
    with one_at_a_time(out):
        train(config, dataset, out, CPU, resume=True)
    return out


def events(out: Path) -> list[Event]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def what_repeats(out: Path) -> dict[str, Any]:
    """All that a run promises to give again: metrics, configuration and, by the digests in it, every file of the model."""
    lines = [(event["step"], event["total_steps"], event["epoch"], event["metrics"]) for event in events(out)]
    config = read_config(out).model_dump()
    assert config["files"] == {name: sha256_file(out / name) for name in FILES}
    return {"metrics": lines, "config": config}


class Killed(Exception):
    """Stands for a kill: whatever was not written yet is lost."""


def killed_after(dataset: Dataset, out: Path, lines: int, config: TrainConfig | None = None) -> None:
    """Leave in `out` a run that was killed after it had written `lines` lines of metrics."""
    left = lines

    def die(event: Event) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    with pytest.raises(Killed):
        train(config or tiny(dataset), dataset, out, CPU, on_event=die)


def without_a_gradient(name: str) -> Callable[..., dict[str, torch.Tensor]]:
    """A stand-in for `losses.weighted` in which the term `name` has no gradient."""

    def make(terms: dict[str, torch.Tensor], config: LossConfig) -> dict[str, torch.Tensor]:
        return {n: part * (n != name) for n, part in weighted(terms, config).items()}

    return make
