"""A run stops before its weights break, and after an epoch that shows that the others would be in vain."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import LOSS_TERMS, GateThresholds
from lvm.data.dataset import Dataset
from lvm.errors import GateRefused, TrainingDiverged
from lvm.gates.training import CheckedTraining, early_gates
from lvm.models import Prediction
from lvm.training import trainer as training
from lvm.training.batches import BatchReader
from lvm.training.trainer import Trainer, train
from tests.support.trainings import CPU, events, tiny, without_a_gradient


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


@pytest.mark.parametrize(
    ("stretches", "steps"), [(8, "at step 0: "), (2, "at step 0 and step 50: ")], ids=["under fifty steps", "over fifty steps"]
)
def test_term_that_steers_nothing_stops_a_run_after_its_first_epoch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretches: int, steps: str
) -> None:
    monkeypatch.setattr("lvm.training.gradcache.weighted", without_a_gradient("infonce"))
    config = tiny(dataset, "epochs=2", f"sampler.stretches={stretches}")
    for resume in (False, True):
        with pytest.raises(GateRefused, match=rf"loss_balance: .*{steps}.*infonce 0.*No gradient of infonce.*set loss.infonce=0") as caught:
            train(config, dataset, tmp_path / "run", CPU, resume=resume)
        assert "collapse" not in str(caught.value)
        assert [line["epoch"] for line in events(tmp_path / "run") if "val/cosine" in line["metrics"]] == [0]
        assert not (tmp_path / "run" / "config.json").exists(), "nothing that a later stage would take for a model"


def test_run_is_not_checked_by_step_0_alone_while_step_50_is_to_come(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(tiny(dataset), dataset, tmp_path / "run", CPU)  # 17 steps an epoch, 51 in all
    found = trainer.evaluate_average()
    silent = {f"train/gradient_share_{name}": 0.0 for name in LOSS_TERMS}
    measured = [{"step": 0.0, **silent}]
    assert trainer.total_steps > 50
    after = CheckedTraining(trainer.config.loss, 0, trainer.total_steps, measured, found, GateThresholds())
    assert [gate.name for gate in early_gates(after)] == ["collapse"]
    assert early_gates(replace(after, epoch=1)) == []
    (balance,) = early_gates(replace(after, epoch=2, gradient_shares=[*measured, {"step": 50.0, **silent}]))
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
