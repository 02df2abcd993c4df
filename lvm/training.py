"""Training one predictor: a loop that can be killed at any step and goes on as if it had not been.

Everything that a later step depends on is in one file, `training/state.safetensors`, replaced
atomically after every epoch and every half minute: weights, their average, the best so far,
optimizer moments, random state, position. Batches follow from (seed, epoch, step) alone.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from lvm.baselines import fit_baselines
from lvm.card import model_card
from lvm.checkpoint import FILES, GOLDEN_INPUTS, CheckpointConfig, read_config, save_checkpoint
from lvm.config import TrainConfig, parse
from lvm.corpus.dataset import Dataset
from lvm.durable import digest_json, replacing, write_json, write_text
from lvm.errors import InputError
from lvm.evaluation import Evaluation, evaluate, reference
from lvm.losses import BatchVectors, EncoderStatistics, loss_terms, weighted
from lvm.models import Predictor, build_predictor
from lvm.sampling import Batch, DiverseBatchSampler
from lvm.windows import contexts, make_windows, unit

LOG_EVERY = 10
SAVE_SECONDS = 30.0
SHARE_STEPS = (0, 50)
SHARE_EVERY = 200
TERMS = ("regression", "norm", "infonce", "moments", "variance")

Event = dict[str, Any]
"""A line of metrics.jsonl: step, epoch, metrics (reproducible) and timing (not)."""


class TrainingDiverged(RuntimeError):
    """The loss stopped being a finite number; the message says when it last was."""


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0
    step: int = 0
    """Steps done in all."""

    epoch_step: int = 0
    """Steps done in this epoch."""

    best_score: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


def run_key(config: TrainConfig, dataset: Dataset) -> str:
    """Identity of a run: configuration and data. The same key gives the same model."""
    return digest_json([config.model_dump(), dataset.manifest.digest])


def train_config(arch: str, dim: int, settings: Sequence[str] = ()) -> TrainConfig:
    """The default configuration of `arch` with `settings` such as `model.width=512` laid over it.

    Values are JSON where they parse as such, else strings. Raises `InputError` that names an
    unknown field or a bad value.
    """
    values: dict[str, Any] = {"model": {"arch": arch, "dim": dim}}
    for setting in settings:
        name, found, text = setting.partition("=")
        if not found:
            raise InputError(f"setting {setting!r}: expected FIELD=VALUE, such as model.width=512")
        try:
            value: Any = json.loads(text)
        except ValueError:
            value = text
        *parents, last = name.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"setting {setting!r}: '{parent}' is a value, not a group of fields")
        place[last] = value
    return parse(TrainConfig, values)


class Trainer:
    """Trains the model of `config` on `dataset` into the folder `out`.

    `on_event` receives every line that goes to `metrics.jsonl`.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        out: Path,
        device: torch.device,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        if config.model.dim != dataset.dim:
            raise InputError(f"field 'model.dim' is {config.model.dim}, the dataset's embeddings have {dataset.dim}")
        if not len(dataset.rows("train")):
            raise InputError(f"split 'train' of dataset {dataset.path} is empty: give more documents (ten or more)")
        if not any(getattr(config.loss, name) for name in TERMS):
            raise InputError(f"every loss weight is 0: give one of {', '.join(f'loss.{name}' for name in TERMS)} a value")
        self.config, self.dataset, self.out, self.device = config, dataset, out, device
        self.on_event = on_event
        self.key = run_key(config, dataset)
        self.folder = out / "training"
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
        self.reference = reference(dataset, windows, self.baselines, device)
        self.vectors = torch.from_numpy(np.asarray(dataset.vectors)).to(device) if device.type != "cpu" else None
        self.bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        self._started = self._saved = time.monotonic()
        self._positions = self._first_step = 0

    def run(self) -> CheckpointConfig:
        """Train to the end (or to early stopping), export the best model, return its configuration."""
        while not self._finished():
            self._train_epoch()
            self._validate()
            self.progress.epoch += 1
            self.progress.epoch_step = 0
            self.save_state()
        return self._export()

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
            if time.monotonic() - self._saved > SAVE_SECONDS and self.progress.epoch_step < steps:
                self.save_state()

    def _step(self, batch: Batch) -> None:
        step = self.progress.step
        rate = learning_rate(step, self.total_steps, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        vectors = self._gather(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            prediction = self.model(vectors.context)
        terms = loss_terms(prediction, vectors, self.statistics, self.config.loss)
        parts = weighted(terms, self.config.loss)
        loss = torch.stack(list(parts.values())).sum()
        log = step % LOG_EVERY == 0
        metrics: dict[str, float] = {}
        if step in SHARE_STEPS or step % SHARE_EVERY == 0:
            metrics |= gradient_shares(parts, self.weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        # One look at the device a step: a non-finite loss must stop before it reaches the weights.
        total = float(loss.detach())
        if not math.isfinite(float(norm)) or not math.isfinite(total):
            since = f"the last good step is {step - 1}" if step else "no step was good"
            raise TrainingDiverged(f"loss {total}, gradient norm {float(norm)} at step {step}; {since}. Lower learning_rate, with --fresh")
        self.optimizer.step()
        decay = min(self.config.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, self.weights, 1 - decay)
        self._positions += int(vectors.valid.sum())
        if log:
            metrics |= {f"train/loss_{name}": float(term.detach()) for name, term in terms.items()}
            metrics |= {"train/loss": total, "train/gradient_norm": float(norm), "train/learning_rate": rate}
            self._emit(metrics)

    def _gather(self, batch: Batch) -> BatchVectors:
        rows = torch.from_numpy(batch.rows)
        negative_rows = torch.from_numpy(batch.negatives.reshape(-1))
        docs = torch.from_numpy(batch.docs)
        negative_docs = docs.repeat_interleave(batch.negatives.shape[1])[negative_rows >= 0]
        negative_rows = negative_rows[negative_rows >= 0]
        anchors = torch.from_numpy(batch.anchors)
        stretch = self._read(rows)
        return BatchVectors(
            context=stretch[:, :-1],
            targets=stretch[:, 1:],
            valid=torch.from_numpy(batch.valid).to(self.device),
            anchors=anchors.to(self.device),
            anchor_rows=rows[:, :-1][anchors].to(self.device),
            anchor_docs=docs[:, None].expand_as(anchors)[anchors].to(self.device),
            negatives=self._read(negative_rows),
            negative_rows=negative_rows.to(self.device),
            negative_docs=negative_docs.to(self.device),
        )

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        if self.vectors is None:
            return torch.from_numpy(self.dataset.vectors[rows.numpy()])
        return self.vectors[rows.to(self.device)]

    def _validate(self) -> None:
        found = self.evaluate_average()
        metrics = {f"val/{name}": value for name, value in found.values().items()}
        collapse = found.collapse()
        metrics |= {
            "val/sigma_ratio": collapse["y_dec_sigma_ratio"],
            "val/effective_rank": collapse["y_dec_effective_rank"],
            "val/pairwise_cosine": collapse["y_dec_pairwise_cosine"],
        }
        metrics |= {f"val/y_cos_{name}": collapse[f"y_cos_{name}"] for name in ("sigma_ratio", "effective_rank", "pairwise_cosine")}
        score = metrics["val/skill_cosine"] + self.config.select_recall * metrics["val/skill_recall_at_5"]
        metrics["val/selection"] = score
        self.progress.history.append({"epoch": float(self.progress.epoch), **metrics})
        if score > self.progress.best_score:
            self.progress.best_score, self.progress.best_epoch = score, self.progress.epoch
            self.best = [p.clone() for p in self.average]
        best = self.progress.history[self.progress.best_epoch]
        self._emit(metrics | {f"best/{name.removeprefix('val/')}": value for name, value in best.items() if name != "epoch"})

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
        elapsed, step = time.monotonic() - self._started, self.progress.step
        timing = {
            "time": time.time(),
            "system/chunks_per_second": self._positions / max(elapsed, 1e-9),
            "system/eta_seconds": elapsed / max(step - self._first_step, 1) * (self.total_steps - step),
        }
        event: Event = {"step": step, "total_steps": self.total_steps, "epoch": self.progress.epoch, "metrics": metrics, "timing": timing}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, allow_nan=False) + "\n")
        self.on_event(event)

    def save_state(self) -> None:
        """Replace `training/state.safetensors` by the present state, durably."""
        tensors = {"rng": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng_cuda"] = torch.cuda.get_rng_state(self.device)
        for i, parameter in enumerate(self.weights):
            moments = self.optimizer.state[parameter]
            values = {"weight": parameter, "average": self.average[i], "best": self.best[i], **moments}
            tensors |= {f"{name}.{i}": value.detach().cpu().contiguous() for name, value in values.items()}
        metadata = {"key": self.key, "progress": json.dumps(vars(self.progress))}
        with replacing(self.folder / "state.safetensors") as temporary:
            save_file(tensors, temporary, metadata)
        self._saved = time.monotonic()

    def resume(self) -> bool:
        """Go on from the saved state, if there is one; returns whether there was.

        Raises `InputError` when the state belongs to another configuration or dataset, or is
        damaged. Lines of `metrics.jsonl` that were written after the state are dropped, since
        their steps are done again.
        """
        file = self.folder / "state.safetensors"
        if not file.exists():
            (self.folder / "metrics.jsonl").unlink(missing_ok=True)
            return False
        try:
            self._load_state(file)
        except InputError:
            raise
        except Exception as error:  # safetensors raises its own kinds, a missing key or another shape others
            raise InputError(f"{file} is truncated or altered ({error}): give --fresh to start over") from error
        self._first_step = self.progress.step
        self._keep_events()
        return True

    def _load_state(self, file: Path) -> None:
        with safe_open(file, "pt") as state:
            metadata = state.metadata()
            if metadata["key"] != self.key:
                raise InputError(f"{self.out} was trained with another configuration or dataset: give --fresh or another --out")
            self.progress = Progress(**json.loads(metadata["progress"]))
            torch.set_rng_state(state.get_tensor("rng"))
            if self.device.type == "cuda" and "rng_cuda" in state.keys():  # noqa: SIM118 (not a dict)
                torch.cuda.set_rng_state(state.get_tensor("rng_cuda"), self.device)
            with torch.no_grad():
                for i, parameter in enumerate(self.weights):
                    parameter.copy_(state.get_tensor(f"weight.{i}"))
                    self.average[i].copy_(state.get_tensor(f"average.{i}"))
                    self.best[i].copy_(state.get_tensor(f"best.{i}"))
                    self.optimizer.state[parameter] = {
                        "step": state.get_tensor(f"step.{i}"),
                        "exp_avg": state.get_tensor(f"exp_avg.{i}").to(self.device),
                        "exp_avg_sq": state.get_tensor(f"exp_avg_sq.{i}").to(self.device),
                    }

    def _keep_events(self) -> None:
        file = self.folder / "metrics.jsonl"
        if not file.is_file():
            raise InputError(f"{file} is missing, though its run has a state: give --fresh to start over")
        kept = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # the line that the kill cut short
                break
            if event_order(event) > 2 * self.progress.step:
                break
            kept.append(line)
        write_text(file, "".join(line + "\n" for line in kept))

    def _export(self) -> CheckpointConfig:
        self._set_weights(self.best)
        best = self.progress.history[self.progress.best_epoch]
        golden = self.reference.windows.targets
        golden = golden[np.linspace(0, len(golden) - 1, GOLDEN_INPUTS).astype(int)]
        inputs = next(iter(contexts(self.dataset.vectors, golden, self.config.context_length, torch.device("cpu"))))
        card = model_card(self.config, self.dataset.manifest, best, self.progress.history)
        return save_checkpoint(
            self.out, self.model, inputs, self.baselines, self.config, self.dataset.manifest.recipe,
            self.dataset.manifest.digest, best, self.progress.history, card,
        )  # fmt: skip


def train(
    config: TrainConfig,
    dataset: Dataset,
    out: Path,
    device: torch.device,
    resume: bool = False,
    fresh: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> CheckpointConfig:
    """Train a model into `out`; return at once when `resume` finds it finished.

    `resume` goes on from the last checkpoint (or starts, where there is none); `fresh` clears
    the run that is there, and no file that is not a run's; with neither, an `out` that holds a
    run is an `InputError`.
    """
    if resume and fresh:
        raise InputError("--resume and --fresh exclude each other")
    if fresh:
        for name in ("config.json", *FILES):
            (out / name).unlink(missing_ok=True)
        if (out / "training").exists():
            shutil.rmtree(out / "training")
    if not resume and ((out / "training").exists() or (out / "config.json").exists()):
        raise InputError(f"{out} holds a run already: give --resume to go on, --fresh to start over, or another --out")
    if resume and (out / "config.json").exists():
        finished = read_config(out)
        if (finished.train, finished.dataset_digest) != (config, dataset.manifest.digest):
            raise InputError(f"{out} holds a model of another configuration or dataset: give --fresh or another --out")
        return finished
    trainer = Trainer(config, dataset, out, device, on_event)
    if resume:
        trainer.resume()
    write_json(out / "training" / "config.json", config.model_dump())
    return trainer.run()


def event_order(event: Event) -> int:
    """Place of an event of metrics.jsonl among its run's: a validation comes before the step of the same number."""
    return 2 * int(event["step"]) + ("val/cosine" not in event["metrics"])


def encoder_statistics(dataset: Dataset, device: torch.device) -> EncoderStatistics:
    """The encoder's moments over the training chunks, summed in float64 a block at a time."""
    rows = dataset.rows("train")
    sums = torch.zeros(4, dataset.dim, dtype=torch.float64)
    norms = 0.0
    for start in range(0, len(rows), 65_536):
        raw = torch.from_numpy(dataset.vectors[rows[start : start + 65_536]]).double()
        scaled = unit(raw.numpy(), torch.device("cpu"))
        sums += torch.stack([raw.sum(0), raw.square().sum(0), scaled.sum(0), scaled.square().sum(0)])
        norms += float(raw.norm(dim=-1).sum())
    mean, square, unit_mean, unit_square = sums / len(rows)
    return EncoderStatistics(
        mean=mean.float().to(device),
        std=(square - mean.square()).clamp_min(0).sqrt().float().to(device),
        norm=norms / len(rows),
        unit_std=(unit_square - unit_mean.square()).clamp_min(0).sqrt().float().to(device),
    )


def make_optimizer(model: Predictor, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); biases, gains and lag weights are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to zero; never above `config.learning_rate`."""
    warm = config.warmup * total
    if step < warm:
        return config.learning_rate * min(1.0, (step + 1) / warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def gradient_shares(parts: dict[str, torch.Tensor], weights: Sequence[torch.Tensor]) -> dict[str, float]:
    """Norm of each weighted term's gradient over that of the largest: who is steering."""
    norms = {}
    for name, part in parts.items():
        gradients = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
        norms[name] = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
    largest = max(norms.values()) or 1.0
    return {f"train/gradient_share_{name}": norm / largest for name, norm in norms.items()}
