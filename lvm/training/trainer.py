"""Training one predictor: a loop that can be killed at any step and goes on as if it had not been.

Everything that a later step depends on is in one file, `training/state.safetensors`, replaced
atomically after every epoch and every half minute, or less often where it is so large that this would
take more than a tenth of the time: weights, their average, the best so far, optimizer moments,
random state, position. Batches follow from (seed, epoch, step) alone.
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
from lvm.models.card import model_card
from lvm.models.checkpoint import FILES, GOLDEN_INPUTS, CheckpointConfig, read_config, save_checkpoint
from lvm.models.ood import fit_out_of_distribution
from lvm.training.batches import BatchReader
from lvm.training.distributed import Ranks
from lvm.training.gradcache import BatchGradients
from lvm.training.metrics_log import Event, append_event, keep_events
from lvm.training.optimizer import make_optimizer
from lvm.training.run_folder import STATE_FOLDER, prepare_run_folder
from lvm.training.sampler import Batch, DiverseBatchSampler
from lvm.training.schedule import warmup_cosine
from lvm.training.state import Progress, load_state, save_state

STATE, EVENTS = "state.safetensors", "metrics.jsonl"


LOG_EVERY = 10


SAVE_SECONDS = 30.0


QUICK_SAVE = 1.0
"""Seconds. A state that takes longer to write is not written again before ten times as long has passed."""


SHARE_EVERY = 200


def run_key(config: TrainConfig, dataset: Dataset) -> str:
    """Identity of a run: configuration and data. The same key gives the same model, by as many processes."""
    return digest_json([config.model_dump(), dataset.manifest.digest])


class Trainer:
    """Trains the model of `config` on `dataset` into the folder `out`.

    `on_event` receives every line that goes to `metrics.jsonl`. Of several processes (`ranks`) each holds the
    same state and takes the same decisions; rank 0 writes and tells.
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
        if config.model.dim != dataset.dim:
            raise InputError(f"field 'model.dim' is {config.model.dim}, the dataset's embeddings have {dataset.dim}")
        if not len(dataset.rows("train")):
            raise InputError(f"split 'train' of dataset {dataset.path} is empty: give more documents (ten or more)")
        if not any(getattr(config.loss, name) for name in LOSS_TERMS):
            raise InputError(f"every loss weight is 0: give one of {', '.join(f'loss.{name}' for name in LOSS_TERMS)} a value")
        dataset.require_finite()
        dataset = dataset.directed(config.reverse)
        self.config, self.dataset, self.out, self.device = config, dataset, out, device
        self.on_event, self.ranks, self.limits = on_event, ranks, limits
        self.key = run_key(config, dataset)
        self.folder = out / STATE_FOLDER
        self.progress = Progress()
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        # Bitwise repeatability is promised on the CPU; on a GPU it would cost a sort in every scatter.
        torch.use_deterministic_algorithms(device.type == "cpu")
        self.statistics = encoder_statistics(dataset, device)
        self.model = build_predictor(config.model, self.statistics.mean, self.statistics.std).to(device)
        # Only floating-point values are averaged; the normalisation buffers never change.
        self.weights: list[torch.Tensor] = list(self.model.parameters())
        self.average = [p.detach().clone() for p in self.weights]
        self.best = [p.detach().clone() for p in self.weights]
        self.optimizer = make_optimizer(self.model, config)
        self.sampler = DiverseBatchSampler(dataset.starts, dataset.docs("train"), config.sampler, config.seed)
        self.total_steps = sum(self.sampler.steps(epoch) for epoch in range(config.epochs))
        self.baselines = fit_baselines(dataset, config.context_length, config.eval_windows, device)
        windows = make_windows(dataset, "val", config.context_length, config.eval_windows, device)
        self.reference = score_baselines(dataset, windows, self.baselines, device)
        self.read = BatchReader(dataset, device)
        self.gradients = BatchGradients(self.model, config, self.statistics, device, ranks)
        self._started = self._saved = time.monotonic()
        self._save_took = 0.0
        self._positions = self._first_step = 0

    def run(self) -> CheckpointConfig:
        """Train to the end (or to early stopping), export the best model, return its configuration.

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
            if self._affordable(0):
                self.save_state()
        if self.ranks.rank == 0:
            self._export()
        self.ranks.wait()
        return read_config(self.out)

    def _finished(self) -> bool:
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
            if self._affordable(SAVE_SECONDS) and self.progress.epoch_step < steps:
                self.save_state()

    def _step(self, batch: Batch) -> None:
        step = self.progress.step
        rate = warmup_cosine(step, self.total_steps, self.config.warmup, self.config.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if isinstance(self.model, Ensemble):
            self.model.turn = step
        vectors = self.read(batch)
        losses = self.gradients(vectors, step, step in SHARE_STEPS or step % SHARE_EVERY == 0)
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        # One look at the device a step: a non-finite loss must stop before it reaches the weights.
        total = float(losses.total)
        if not math.isfinite(float(norm)) or not math.isfinite(total):
            since = f"the last good step is {step - 1}" if step else "no step was good"
            raise TrainingDiverged(f"loss {total}, gradient norm {float(norm)} at step {step}; {since}. Lower learning_rate, with --fresh")
        self.optimizer.step()
        decay = min(self.config.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, self.weights, 1 - decay)
        self._positions += int(vectors.valid.sum())
        metrics = dict(losses.shares)
        halved = self.gradients.micro_batch != self.progress.micro_batch
        if halved:
            self.progress.micro_batch = self.gradients.micro_batch
            metrics["train/micro_batch"] = float(self.progress.micro_batch)
        if step % LOG_EVERY == 0 or halved:
            terms = {f"train/loss_{name}": float(term) for name, term in losses.terms.items()}
            if losses.shares:
                self.progress.gradient_shares.append({"step": float(step), **losses.shares, **terms})
            metrics |= terms | {"train/loss": total, "train/gradient_norm": float(norm), "train/learning_rate": rate}
            self._emit(metrics)

    def _validate(self) -> Evaluation:
        found = self.evaluate_average()
        metrics = {f"val/{name}": value for name, value in found.values().items()}
        collapse = found.collapse()
        metrics |= {
            "val/sigma_ratio": collapse["y_dec_sigma_ratio"],
            "val/effective_rank": collapse["y_dec_effective_rank"],
            "val/pairwise_cosine": collapse["y_dec_pairwise_cosine"],
        }
        metrics |= {f"val/y_cos_{name}": collapse[f"y_cos_{name}"] for name in ("sigma_ratio", "effective_rank", "pairwise_cosine")}
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
        """Replace `training/state.safetensors` by the present state, durably."""
        if self.ranks.rank:
            return
        began = time.monotonic()
        save_state(self.folder / STATE, self.key, self.progress, self._tensors(), self.optimizer, self.device)
        self._saved = time.monotonic()
        self._save_took = self._saved - began

    def _affordable(self, seconds: float) -> bool:
        """Whether more than `seconds` have passed since the last state, and enough for what writing it takes."""
        dear = 10 * self._save_took if self._save_took > QUICK_SAVE else 0
        return time.monotonic() - self._saved > max(seconds, dear)

    def resume(self) -> bool:
        """Go on from the saved state, if there is one; returns whether there was.

        Raises `InputError` when the state belongs to another configuration or dataset, or is
        damaged. Lines of `metrics.jsonl` that were written after the state are dropped, since
        their steps are done again. Any number of processes goes on from it: the batches are the same, only
        dropout and rounding differ.
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
        self._set_weights(self.best)
        best = self.progress.history[self.progress.best_epoch]
        golden = self.reference.windows.targets
        golden = golden[np.linspace(0, len(golden) - 1, GOLDEN_INPUTS).astype(int)]
        inputs = next(iter(contexts(self.dataset.vectors, golden, self.config.context_length, torch.device("cpu"))))
        card = model_card(self.config, self.dataset.manifest, best, self.progress.history)
        save_checkpoint(
            self.out, self.model, inputs, self.baselines, fit_out_of_distribution(self.dataset), self.config,
            self.dataset.manifest.recipe, self.dataset.manifest.digest, best, self.progress.history,
            self.progress.gradient_shares, card,
        )  # fmt: skip


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

    `resume` goes on from the last checkpoint (or starts, where there is none); `fresh` clears
    the run that is there, and no file that is not a run's; with neither, an `out` that holds a
    run is an `InputError`.
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
