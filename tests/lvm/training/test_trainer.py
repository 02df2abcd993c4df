"""A run learns, keeps its best epoch, and refuses input that it cannot be trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lvm.config import train_config
from lvm.data.dataset import Dataset
from lvm.data.windows import make_windows
from lvm.errors import InputError
from lvm.evaluation.evaluate import evaluate_checkpoint, predict
from lvm.models.checkpoint import load_checkpoint
from lvm.training import trainer as training
from lvm.training.metrics_log import Event
from lvm.training.trainer import Trainer, train
from tests.support.trainings import CPU, Killed, events, tiny, trained


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


@pytest.mark.slow
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
    # Heads without closed forms: among these is the index of the training contexts, which knows their successors before any training.
    config = train_config(
        "lstm", dataset.dim,
        ["model.heads=residual", "model.width=256", "model.dropout=0", "epochs=32", "learning_rate=0.005", "weight_decay=0",
         "patience=1000", "context_length=2",
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


def test_training_raises_the_cosine_over_the_closed_forms_it_starts_from(dataset: Dataset) -> None:
    history = load_checkpoint(trained(dataset), CPU).config.history
    regression = [event["metrics"]["train/loss_regression"] for event in events(trained(dataset)) if "train/loss" in event["metrics"]]
    assert regression[-1] < regression[0] - 0.01
    assert max(epoch["val/cosine"] for epoch in history) > 0.43


def test_exported_model_scores_what_its_best_epoch_scored(dataset: Dataset) -> None:
    checkpoint = load_checkpoint(trained(dataset), CPU)
    best, history = checkpoint.config.best, checkpoint.config.history
    assert [int(epoch["epoch"]) for epoch in history] == list(range(len(history)))
    kept = max(history, key=lambda epoch: epoch["val/selection"])
    assert best["epoch"] == kept["epoch"]
    assert best["val/cosine"] >= kept["val/cosine"], "what is chosen after the training is at worst what stood before"
    for epoch in history:
        assert epoch["val/selection"] == epoch["val/skill_cosine"] + 0.5 * epoch["val/skill_recall_at_5"]
    found = evaluate_checkpoint(dataset, checkpoint, "val").values()
    assert {name: best[f"val/{name}"] for name in found} == pytest.approx(found, abs=1e-6)
    others = [epoch for epoch in history if epoch is not kept]
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
