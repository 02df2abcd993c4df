"""Every metric of a model beside every baseline, on one split at one context length.

Skill is the model's metric minus the best baseline's on the same windows, with an interval over documents.
A high cosine alone says little: the best baseline may have it too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.data.windows import Windows, contexts, make_windows, retrieval_ranks, unit
from lvm.errors import InputError
from lvm.evaluation.intervals import Interval, document_interval, document_sums
from lvm.evaluation.looks import count_model
from lvm.evaluation.metrics import Spread, sigma_ratio, spread
from lvm.models import Predictor
from lvm.models.baselines import Baselines, fit_baselines
from lvm.models.checkpoint import Checkpoint

MEASURED = ("cosine", "recall_at_1", "recall_at_5", "recall_at_10", "mrr")
"""The metrics of a model and of every baseline."""


SKILLS = ("cosine", "recall_at_1", "recall_at_5", "mrr")
"""The metrics that have a skill: the first is of y_dec, the others, of retrieval, are of y_cos. A report shows all four, or none."""


@dataclass(frozen=True)
class Scores:
    """Results of one predictor, window by window."""

    cosine: np.ndarray
    """float32 [N]: cosine of the predicted to the true next vector."""

    ranks: np.ndarray
    """int64 [N]: rank of the true next chunk in the pool."""

    def quantity(self, name: str) -> np.ndarray:
        """Values [N] whose mean is the metric `name`: cosine, recall_at_k or mrr."""
        if name == "cosine":
            return self.cosine
        if name == "mrr":
            return 1 / self.ranks
        return (self.ranks <= int(name.removeprefix("recall_at_"))).astype(np.float32)

    def by_document(self, docs_N: np.ndarray) -> dict[str, list[float]]:
        """Sums of the metrics that have a skill, and number of windows, of each document, ordered by document number.

        `docs_N` are the numbers of the windows' documents. Two models with these on the same windows can be compared in pairs.
        """
        sums = {name: document_sums(self.quantity(name), docs_N)[0].tolist() for name in SKILLS}
        return {"windows": document_sums(self.cosine, docs_N)[1].tolist()} | sums


@dataclass(frozen=True)
class Evaluation:
    """A model and the baselines on the windows of one split."""

    split: str
    windows: Windows
    model: Scores
    baselines: dict[str, Scores]
    shuffled_cosine: np.ndarray
    """float32 [N]: the model's cosine with each context in random order."""

    spreads: dict[str, Spread]
    """Of 'target', 'y_dec', 'y_cos' and 'ridge'."""

    def best_baseline(self, metric: str) -> str:
        """Name of the baseline with the highest mean on these windows.

        It is picked on the windows that it is then compared on. The highest of several means lies above its own expectation, by
        chance, so a skill errs slightly against the model, never in its favour.
        """
        return max(self.baselines, key=lambda name: float(self.baselines[name].quantity(metric).mean()))

    def interval(self, metric: str) -> Interval:
        """The model's metric with its interval."""
        return document_interval(self.model.quantity(metric), self.windows.docs)

    def skills(self, metric: str) -> np.ndarray:
        """float32 [N]: the model's metric minus the best baseline's, window by window."""
        return self.model.quantity(metric) - self.baselines[self.best_baseline(metric)].quantity(metric)

    def lead(self, metric: str, baseline: str) -> Interval:
        """The model's metric minus that of one baseline, paired by window."""
        return document_interval(self.model.quantity(metric) - self.baselines[baseline].quantity(metric), self.windows.docs)

    def skill(self, metric: str) -> Interval:
        """The model's metric minus the best baseline's, paired by window."""
        return self.lead(metric, self.best_baseline(metric))

    def skill_lines(self) -> dict[str, str]:
        """By metric: its skill with the interval, and the baseline that it is over, for people."""
        return {metric: f"{self.skill(metric)} over {self.best_baseline(metric)}" for metric in SKILLS}

    def shuffle_drop(self) -> Interval:
        """Cosine that is lost when the context is shuffled."""
        return document_interval(self.model.cosine - self.shuffled_cosine, self.windows.docs)

    def metrics(self) -> dict[str, Interval]:
        """Every metric with its interval."""
        own = {name: self.interval(name) for name in MEASURED}
        return own | {f"skill_{metric}": self.skill(metric) for metric in SKILLS} | {"shuffle_drop": self.shuffle_drop()}

    def values(self) -> dict[str, float]:
        """The values of `metrics`, without intervals."""
        own = {name: float(self.model.quantity(name).mean()) for name in MEASURED}
        for name in SKILLS:
            own[f"skill_{name}"] = own[name] - float(self.baselines[self.best_baseline(name)].quantity(name).mean())
        return own | {"shuffle_drop": own["cosine"] - float(self.shuffled_cosine.mean())}

    def collapse(self) -> dict[str, float]:
        """Spread of the outputs, the targets and ridge, on unit vectors; effective ranks as shares of the targets'."""
        target = self.spreads["target"]
        out: dict[str, float] = {}
        for name, found in self.spreads.items():
            out[f"{name}_pairwise_cosine"] = found.pairwise_cosine
            out[f"{name}_effective_rank"] = found.effective_rank / target.effective_rank
            out[f"{name}_sigma_ratio"] = sigma_ratio(found, target)
            out[f"{name}_norm"] = found.norm
        return out

    def summary(self) -> dict[str, Any]:
        """Everything except the arrays [N], as JSON values."""
        return {
            "split": self.split,
            "context_length": self.windows.context_length,
            "metrics": {name: asdict(interval) for name, interval in self.metrics().items()},
            "baselines": {b: {n: float(scores.quantity(n).mean()) for n in MEASURED} for b, scores in self.baselines.items()},
            "best_baseline": {metric: self.best_baseline(metric) for metric in SKILLS},
            "pool": {
                "size": len(self.windows.pool),
                "sha256": self.windows.pool_hash,
                "queries": len(self.windows.answer),
                "documents": len(np.unique(self.windows.docs)),
                "dropped_leaked": self.windows.dropped,
                "chance_recall_at_5": self.windows.chance_at_5,
            },
            "collapse": self.collapse(),
            "by_document": self.model.by_document(self.windows.docs),
        }


@dataclass(frozen=True)
class Reference:
    """Windows with the scores of the baselines: computed once, shared by every model and epoch."""

    windows: Windows
    targets: torch.Tensor
    """[N, D], the true next vectors as stored."""

    pool: torch.Tensor
    """[P, D], the retrieval pool at unit length."""

    scores: dict[str, Scores]
    ridge: torch.Tensor
    """[N, D], the predictions of the baseline ridge."""


@torch.inference_mode()
def score_baselines(dataset: Dataset, windows: Windows, baselines: Baselines, device: torch.device) -> Reference:
    """Score the baselines on `windows`."""
    targets = torch.from_numpy(dataset.vectors[windows.targets]).to(device)
    pool = unit(dataset.vectors[windows.pool], device)
    fitted = baselines.to(device)
    parts = [fitted.predict(c) for c in contexts(dataset.vectors, windows.targets, windows.context_length, device)]
    predicted = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    scores = {name: score(p, p, targets, pool, windows) for name, p in predicted.items()}
    return Reference(windows, targets, pool, scores, predicted["ridge"])


def score(y_dec: torch.Tensor, y_cos: torch.Tensor, targets: torch.Tensor, pool: torch.Tensor, windows: Windows) -> Scores:
    """Cosine of `y_dec` and retrieval ranks of `y_cos`, both [N, D]."""
    cosine = F.cosine_similarity(y_dec, targets, dim=-1).cpu().numpy()
    return Scores(cosine, retrieval_ranks(y_cos, pool, windows.answer, windows.excluded))


@torch.inference_mode()
def predict(
    model: Predictor, dataset: Dataset, windows: Windows, device: torch.device, shuffle: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's `(y_dec, y_cos)`, each [N, D]; with `shuffle`, from contexts in random order."""
    parts = contexts(dataset.vectors, windows.targets, windows.context_length, device)
    return predict_contexts(model, _shuffled(parts) if shuffle else parts)


def _shuffled(parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The contexts, each in random order; fixed seed."""
    generator = torch.Generator().manual_seed(0)
    for part in parts:
        order = torch.rand(part.shape[:2], generator=generator).argsort(1).to(part.device)
        yield part.gather(1, order[..., None].expand_as(part))


@torch.inference_mode()
def predict_contexts(model: Predictor, parts: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's `(y_dec, y_cos)`, each [N, D], for batches of contexts [B, T, D]."""
    model.eval()
    decoder, cosine = [], []
    for part in parts:
        y_dec, y_cos = model(part, return_both=True)
        decoder.append(y_dec)
        cosine.append(y_cos)
    return torch.cat(decoder), torch.cat(cosine)


def evaluate(model: Predictor, dataset: Dataset, split: str, ref: Reference, device: torch.device) -> Evaluation:
    """Evaluate `model` on the windows of `ref`. `dataset` is in the direction that the model reads."""
    y_dec, y_cos = predict(model, dataset, ref.windows, device)
    shuffled, _ = predict(model, dataset, ref.windows, device, shuffle=True)
    outputs = {"target": ref.targets, "y_dec": y_dec, "y_cos": y_cos, "ridge": ref.ridge}
    return Evaluation(
        split=split,
        windows=ref.windows,
        model=score(y_dec, y_cos, ref.targets, ref.pool, ref.windows),
        baselines=ref.scores,
        shuffled_cosine=F.cosine_similarity(shuffled, ref.targets, dim=-1).cpu().numpy(),
        spreads={name: spread(vectors) for name, vectors in outputs.items()},
    )


def evaluate_checkpoint(
    dataset: Dataset, checkpoint: Checkpoint, split: str = "test", context_length: int | None = None, ref: Reference | None = None
) -> Evaluation:
    """Evaluate `checkpoint` on a split of `dataset` beside the baselines in it, in the direction that the model reads.

    Models with the same data, context length and baselines can share one `make_reference` as `ref`. Looks at test documents are
    counted; see `lvm.evaluation.looks`. Raises what `make_reference` and `count_model` raise.
    """
    found = ref or make_reference(dataset, checkpoint, split, context_length)
    count_model(dataset, split, checkpoint.config, found.windows.context_length)
    data = dataset.directed(checkpoint.config.train.reverse)
    return evaluate(checkpoint.model, data, split, found, checkpoint.model.mean.device)


def make_reference(
    dataset: Dataset,
    checkpoint: Checkpoint,
    split: str,
    context_length: int | None = None,
    pool_size: int | None = None,
    leave_out: np.ndarray | None = None,
) -> Reference:
    """The windows of `split` and the scores of the checkpoint's baselines on them.

    `pool_size` is by default the model's; two sets of documents have to be compared at one size. `leave_out` are rows of a
    foreign dataset, numbered in the direction that the model reads, whose content the model was trained on.

    Raises `InputError` when the encoder recipes differ, when `split` contains documents that the model was trained on, or when
    a foreign dataset is evaluated at another context length, for which no baselines can be fitted.
    """
    config = checkpoint.config
    config.recipe.require_same(dataset.manifest.recipe, f"dataset {dataset.path}")
    trained_here = config.dataset_digest == dataset.manifest.digest
    if split not in ("val", "test", "all"):
        raise InputError(f"field 'split' is {split!r}; expected val, test or all")
    if split == "all" and trained_here:
        raise InputError("split 'all' includes the documents that this model was trained on: give --split test, or other documents")
    dataset.require_finite()
    dataset = dataset.directed(config.train.reverse)
    device = checkpoint.model.mean.device
    length = context_length or config.train.context_length
    windows = make_windows(dataset, split, length, pool_size or config.train.eval_windows, device, leave_out)
    return score_baselines(dataset, windows, _baselines(dataset, checkpoint, length, trained_here), device)


def _baselines(dataset: Dataset, checkpoint: Checkpoint, length: int, trained_here: bool) -> Baselines:
    """The checkpoint's own baselines, or new ones for another context length."""
    if length == checkpoint.baselines.context_length:
        return checkpoint.baselines
    if not trained_here:
        raise InputError(
            f"field 'context_length': {length} needs baselines fitted on the model's own training data; "
            f"this model contains those for {checkpoint.baselines.context_length}"
        )
    return fit_baselines(dataset, length, checkpoint.config.train.eval_windows, checkpoint.model.mean.device)
