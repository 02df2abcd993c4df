"""Training one predictor: a loop that can be killed at any step and resumes as if nothing had happened.

Everything that a later step depends on is in one file, `training/state.safetensors`: the weights, their average, the best so far, the
optimizer's moments, the random state and the position. It is replaced atomically after every epoch and every half minute, or less often
where writing it would take more than a tenth of the time. Batches follow from (seed, epoch, step) alone.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lvm.atomic_io import digest_json, write_json
from lvm.config import LOSS_TERMS, GateThresholds, TrainConfig
from lvm.data.dataset import Dataset
from lvm.data.statistics import encoder_statistics
from lvm.data.windows import contexts, make_windows
from lvm.errors import InputError, TrainingDiverged
from lvm.evaluation.evaluate import Evaluation, evaluate, score_baselines
from lvm.gates.result import require
from lvm.gates.training import SHARE_STEPS, CheckedTraining, early_gates
from lvm.models import Ensemble, build_predictor
from lvm.models.baselines import fit_baselines
from lvm.models.baselines.whitening import whitening_covariance
from lvm.models.card import model_card
from lvm.models.checkpoint import FILES, GOLDEN_INPUTS, CheckpointConfig, TrainingRecord, read_config, save_checkpoint
from lvm.models.ood import fit_out_of_distribution
from lvm.training.batches import BatchReader
from lvm.training.calibrate import calibrate
from lvm.training.distributed import Ranks
from lvm.training.gradcache import BatchGradients, Losses
from lvm.training.metrics_log import Event, append_event, keep_events
from lvm.training.optimizer import make_optimizer
from lvm.training.run_folder import STATE_FOLDER, prepare_run_folder
from lvm.training.sampler import Batch, DiverseBatchSampler
from lvm.training.schedule import warmup_cosine
from lvm.training.state import Progress, load_state, save_state

STATE, EVENTS = "state.safetensors", "metrics.jsonl"

LOG_EVERY = 10
"""Steps between two lines of metrics."""

SHARE_EVERY = 200
"""Steps between two measurements of the gradient shares, besides those that the gates need."""

SAVE_SECONDS = 30.0
"""Seconds between two states within an epoch."""

QUICK_SAVE = 1.0
"""Seconds. A state that takes longer to write is not written again before ten times as long has passed."""


def run_key(config: TrainConfig, dataset: Dataset) -> str:
    """Identity of a run: configuration and data. The same key gives the same model, with the same number of processes."""
    return digest_json([config.model_dump(), dataset.manifest.digest])


def require_trainable(config: TrainConfig, dataset: Dataset) -> None:
    """Raise `InputError` when `config` and `dataset` do not fit together or nothing can be learned from them."""
    if config.model.dim != dataset.dim:
        raise InputError(f"field 'model.dim' is {config.model.dim}, the dataset's embeddings have {dataset.dim}")
    if not len(dataset.rows("train")):
        raise InputError(f"split 'train' of dataset {dataset.path} is empty: give more documents (ten or more)")
    if not any(config.loss.weights().values()):
        raise InputError(f"every loss weight is 0: give one of {', '.join(f'loss.{name}' for name in LOSS_TERMS)} a value")
    dataset.require_finite()


class Trainer:
    """Trains the model of `config` on `dataset` into the folder `out`.

    `on_event` receives every line that is written to `metrics.jsonl`. Of several processes (`ranks`) each holds the same state and takes
    the same decisions; rank 0 writes and reports. `limits` are the thresholds of the early gates.

    Raises what `require_trainable` raises.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        out: Path,
        device: torch.device,
        on_event: Callable[[Event], None] = lambda event: None,
        ranks: Ranks = Ranks(),
        limits: GateThresholds = GateThresholds(),
    ) -> None:
        require_trainable(config, dataset)
        self.config, self.dataset, self.out, self.device = config, dataset.directed(config.reverse), out, device
        self.on_event, self.ranks, self.limits = on_event, ranks, limits
        self.key = run_key(config, dataset)
        self.folder = out / STATE_FOLDER
        self.progress = Progress()
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        # Bitwise repeatability is promised on the CPU. On a GPU it would cost a sort in every scatter.
        torch.use_deterministic_algorithms(device.type == "cpu")
        self._prepare_data()
        self._make_model()
        self._started = self._saved = time.monotonic()
        self._save_took = 0.0
        self._positions = self._first_step = 0

    def _make_model(self) -> None:
        """The model with its optimizer, the average of its weights, and the best average so far."""
        self.statistics = encoder_statistics(self.dataset, self.device)
        made = build_predictor(self.config.model, self.statistics.mean, self.statistics.std, self.baselines)
        self.model = made.to(self.device)
        # Buffers are not averaged: the normalisation never changes.
        self.weights: list[torch.Tensor] = list(self.model.parameters())
        self.average = [p.detach().clone() for p in self.weights]
        self.best = [p.detach().clone() for p in self.weights]
        self.optimizer = make_optimizer(self.model, self.config)
        self.gradients = BatchGradients(self.model, self.config, self.statistics, self.device, self.ranks)

    def _prepare_data(self) -> None:
        """The training batches, and the validation windows with the baselines' scores on them."""
        config, dataset, device = self.config, self.dataset, self.device
        self.read = BatchReader(dataset, device)
        self.sampler = DiverseBatchSampler(dataset.starts, dataset.docs("train"), config.sampler, config.seed)
        self.total_steps = sum(self.sampler.steps(epoch) for epoch in range(config.epochs))
        self.baselines = fit_baselines(dataset, config.context_length, config.eval_windows, device)
        windows = make_windows(dataset, "val", config.context_length, config.eval_windows, device)
        self.reference = score_baselines(dataset, windows, self.baselines, device)

    def run(self) -> CheckpointConfig:
        """Train to the end or to early stopping, export the best model, return its configuration.

        Raises `TrainingDiverged`, and `GateRefused` when the first epoch shows that the others would be in vain.
        """
        while not self._finished():
            self._train_epoch()
            found = self._validate()
            # Before the state is saved: a run that resumes must meet the same gates.
            done = self.progress
            require(early_gates(CheckedTraining(self.config.loss, done.epoch, self.total_steps, done.gradient_shares, found, self.limits)))
            self.progress.epoch += 1
            self.progress.epoch_step = 0
            if self._may_save(0):
                self.save_state()
        if self.ranks.rank == 0:
            self._export()
        self.ranks.wait()
        return read_config(self.out)

    def _finished(self) -> bool:
        """Whether all epochs are done, or validation has not improved for `patience` of them."""
        waited = self.progress.epoch - 1 - self.progress.best_epoch
        return self.progress.epoch >= self.config.epochs or (self.progress.epoch > 0 and waited >= self.config.patience)

    def _train_epoch(self) -> None:
        self.model.train()
        steps = self.sampler.steps(self.progress.epoch)
        for batch in self.sampler.epoch(self.progress.epoch, self.progress.epoch_step):
            self._step(batch)
            self.progress.step += 1
            self.progress.epoch_step += 1
            # Not after an epoch's last step: its validation belongs to the same state.
            if self._may_save(SAVE_SECONDS) and self.progress.epoch_step < steps:
                self.save_state()

    def _step(self, batch: Batch) -> None:
        """Gradients, update, average, and a line of metrics where one is due."""
        step = self.progress.step
        rate = warmup_cosine(step, self.total_steps, self.config.warmup, self.config.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if isinstance(self.model, Ensemble):
            self.model.turn = step
        vectors = self.read(batch)
        losses = self.gradients(vectors, step, step in SHARE_STEPS or step % SHARE_EVERY == 0)
        norm = float(nn.utils.clip_grad_norm_(self.weights, self.config.clip))
        self._require_finite(losses, norm)
        self.optimizer.step()
        decay = min(self.config.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, self.weights, 1 - decay)
        self._positions += int(vectors.valid.sum())
        self._log_step(losses, norm, rate)

    def _require_finite(self, losses: Losses, norm: float) -> None:
        """Raise `TrainingDiverged` before a loss or gradient that is not finite reaches the weights."""
        step, total = self.progress.step, float(losses.total)
        if not math.isfinite(norm) or not math.isfinite(total):
            since = f"the last good step is {step - 1}" if step else "no step was good"
            raise TrainingDiverged(f"loss {total}, gradient norm {norm} at step {step}; {since}. Lower learning_rate, with --fresh")

    def _log_step(self, losses: Losses, norm: float, rate: float) -> None:
        """Log every `LOG_EVERY` steps, and at once when memory ran out."""
        step, metrics = self.progress.step, dict(losses.shares)
        halved = self.gradients.micro_batch != self.progress.micro_batch
        if halved:
            self.progress.micro_batch = self.gradients.micro_batch
            metrics["train/micro_batch"] = float(self.progress.micro_batch)
        if step % LOG_EVERY == 0 or halved:
            terms = {f"train/loss_{name}": float(term) for name, term in losses.terms.items()}
            if losses.shares:
                self.progress.gradient_shares.append({"step": float(step), **losses.shares, **terms})
            metrics |= terms | {"train/loss": float(losses.total), "train/gradient_norm": norm, "train/learning_rate": rate}
            self._emit(metrics)

    def _validate(self) -> Evaluation:
        """Evaluate the averaged weights, log the result, and keep them when they are the best so far."""
        found = self.evaluate_average()
        metrics = validation_metrics(found)
        score = self.ranks.first(metrics["val/skill_cosine"] + self.config.select_recall * metrics["val/skill_recall_at_5"])
        metrics["val/selection"] = score
        self.progress.history.append({"epoch": float(self.progress.epoch), "step": float(self.progress.step), **metrics})
        if score > self.progress.best_score:
            self.progress.best_score, self.progress.best_epoch = score, self.progress.epoch
            self.best = [p.clone() for p in self.average]
        best = self.progress.history[self.progress.best_epoch]
        self._emit(metrics | {f"best/{name.removeprefix('val/')}": value for name, value in best.items()})
        return found

    def evaluate_average(self) -> Evaluation:
        """Evaluate the averaged weights on the validation windows."""
        current = [p.detach().clone() for p in self.weights]
        self._set_weights(self.average)
        found = evaluate(self.model, self.dataset, "val", self.reference, self.device)
        self._set_weights(current)
        return found

    @torch.no_grad()
    def _set_weights(self, values: list[torch.Tensor]) -> None:
        torch._foreach_copy_(self.weights, values)

    def _emit(self, metrics: dict[str, float]) -> None:
        """Append a line to `metrics.jsonl` and pass it to `on_event`; in rank 0 alone."""
        if self.ranks.rank:
            return
        elapsed, step = time.monotonic() - self._started, self.progress.step
        timing = {
            "time": time.time(),
            "system/chunks_per_second": self._positions / max(elapsed, 1e-9),
            "system/eta_seconds": elapsed / max(step - self._first_step, 1) * (self.total_steps - step),
        }
        event: Event = {"step": step, "total_steps": self.total_steps, "epoch": self.progress.epoch, "metrics": metrics, "timing": timing}
        append_event(self.folder / EVENTS, event)
        self.on_event(event)

    def save_state(self) -> None:
        """Replace `training/state.safetensors` by the present state, durably; in rank 0 alone."""
        if self.ranks.rank:
            return
        began = time.monotonic()
        save_state(self.folder / STATE, self.key, self.progress, self._tensors(), self.optimizer, self.device)
        self._saved = time.monotonic()
        self._save_took = self._saved - began

    def _may_save(self, seconds: float) -> bool:
        """Whether more than `seconds` have passed since the last state, and more than ten times what a slow one takes to write."""
        pause = 10 * self._save_took if self._save_took > QUICK_SAVE else 0
        return time.monotonic() - self._saved > max(seconds, pause)

    def resume(self) -> bool:
        """Continue from the saved state, if there is one; returns whether there was.

        Lines of `metrics.jsonl` that were written after the state are dropped, since their steps are done again. The number of processes
        may be another one: the batches stay the same, only dropout and rounding differ.

        Raises `InputError` when the state belongs to another configuration or dataset, or is damaged.
        """
        events = self.folder / EVENTS
        if not (self.folder / STATE).exists():
            if self.ranks.rank == 0:
                events.unlink(missing_ok=True)
            return False
        self.progress = load_state(self.folder / STATE, self.key, self._tensors(), self.optimizer, self.device)
        self.gradients.micro_batch = self.progress.micro_batch
        self._first_step = self.progress.step
        if self.ranks.rank == 0:
            keep_events(events, self.progress.step)
        return True

    def _tensors(self) -> dict[str, list[torch.Tensor]]:
        return {"weight": self.weights, "average": self.average, "best": self.best}

    def _export(self) -> None:
        """Choose what validation chooses for the best weights, and write them as a checkpoint."""
        self._set_weights(self.best)
        history, manifest = self.progress.history, self.dataset.manifest
        choices = self._calibrate() if self.config.model.heads != "legacy" else {}
        found = evaluate(self.model, self.dataset, "val", self.reference, self.device)
        best = history[self.progress.best_epoch] | validation_metrics(found) | choices
        targets = self.reference.windows.targets
        targets = targets[np.linspace(0, len(targets) - 1, GOLDEN_INPUTS).astype(int)]
        golden_inputs = next(iter(contexts(self.dataset.vectors, targets, self.config.context_length, torch.device("cpu"))))
        shares = self.progress.gradient_shares
        record = TrainingRecord(self.config, manifest.recipe, manifest.digest, best, history, shares, manifest.splits)
        card = model_card(self.config, manifest, best, history, found.skill_lines())
        save_checkpoint(self.out, self.model, golden_inputs, self.baselines, fit_out_of_distribution(self.dataset), record, card)

    def _calibrate(self) -> dict[str, float]:
        """Choose shares, weight and whitening; the choices, as 'chosen/NAME'."""
        windows = self.reference.windows
        parts = contexts(self.dataset.vectors, windows.targets, windows.context_length, self.device)
        within = bool(self.baselines.parameters["whitened_ridge"]["within"])
        choices = calibrate(self.model, parts, self.reference, whitening_covariance(self.dataset, within))
        return {f"chosen/{name}": value for name, value in choices.items()}


def validation_metrics(found: Evaluation) -> dict[str, float]:
    """What is logged of an epoch's evaluation: every metric and, for both heads, the numbers that show a collapse."""
    collapse = found.collapse()
    metrics = {f"val/{name}": value for name, value in found.values().items()}
    numbers = ("sigma_ratio", "effective_rank", "pairwise_cosine")
    metrics |= {f"val/{name}": collapse[f"y_dec_{name}"] for name in numbers}
    return metrics | {f"val/y_cos_{name}": collapse[f"y_cos_{name}"] for name in numbers}


def train(
    config: TrainConfig,
    dataset: Dataset,
    out: Path,
    device: torch.device,
    resume: bool = False,
    fresh: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    ranks: Ranks = Ranks(),
    limits: GateThresholds = GateThresholds(),
) -> CheckpointConfig:
    """Train a model into `out`; return at once when `resume` finds it finished.

    `resume` continues from the last state, or starts where there is none. `fresh` first deletes the run that is there, and no other file.
    With neither, an `out` that holds a run is an `InputError`.
    """

    def same_run(found: CheckpointConfig) -> bool:
        return (found.train, found.dataset_digest) == (config, dataset.manifest.digest)

    finished = prepare_run_folder(out, FILES, read_config, same_run, resume, fresh, ranks)
    if finished is not None:
        return finished
    trainer = Trainer(config, dataset, out, device, on_event, ranks, limits)
    if resume:
        trainer.resume()
    if ranks.rank == 0:
        write_json(out / STATE_FOLDER / "config.json", config.model_dump())
    return trainer.run()
