"""What a model uses of its context: how much it loses when chunks are moved, removed or exchanged.

Order and distance matter to baselines as well, whose weights prefer the last chunk. So every loss is reported beside that of
the strongest baseline of the same metric on the same contexts; only the excess is due to the model.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from lvm.data.dataset import Dataset
from lvm.data.windows import Windows, contexts_of_rows
from lvm.errors import InputError
from lvm.evaluation.evaluate import Scores, predict_contexts, score, score_baselines
from lvm.evaluation.intervals import Interval, document_interval
from lvm.models import Predictor
from lvm.models.baselines import STRONGEST, Baselines

WINDOWS = 2_000
"""Windows at most. The fixed sample bounds the time; the intervals include its sampling error."""


NEAR = 8
"""Every lag up to this one is removed in turn, then one lag a doubling, and the farthest."""


@dataclass(frozen=True)
class MetricDrop:
    """Loss of one metric against the intact context, paired by window; positive is a loss."""

    model: Interval
    baseline: Interval

    excess: Interval
    """The model's loss minus the baseline's."""


def lags(length: int) -> list[int]:
    """The lags at which a chunk is removed from a context of `length`: 1, 2, ... 8, 16, 32, ..., `length`."""
    far = [NEAR * 2**i for i in range(1, length.bit_length()) if NEAR * 2**i < length]
    return sorted({*range(1, min(NEAR, length) + 1), *far, length})


def ablated_rows(windows: Windows, seed: int = 0) -> dict[str, np.ndarray]:
    """By ablation, the rows [N, T or fewer] that replace each window's context.

    `lag k` removes the chunk at lag k (1 is the last); the chunks before it move one nearer. The remaining T - 1 chunks are real
    and in order, and models are trained at every length. A mean vector in place of the chunk would be an input that no model has
    seen. `cross_document` keeps the last chunk and takes the others from a random window of another document; `last_alone`
    drops them.

    Raises `InputError` when the context is a single chunk or all windows are from one document.
    """
    length = windows.context_length
    if length < 2:
        raise InputError(f"field 'context_length' is {length}: nothing can be removed from a context of one chunk; give 2 or more")
    rng = np.random.default_rng(seed)
    rows = windows.targets[:, None] + np.arange(-length, 0)
    order = rng.random(rows.shape).argsort(1)
    out = {"shuffle": np.take_along_axis(rows, order, 1), "reverse": rows[:, ::-1]}
    out |= {"cross_document": np.concatenate([rows[_others(windows.docs, rng), :-1], rows[:, -1:]], 1), "last_alone": rows[:, -1:]}
    return out | {f"lag {lag}": np.delete(rows, length - lag, 1) for lag in lags(length)}


def _others(docs_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each window a random window of another document, int64 [N]."""
    if len(np.unique(docs_N)) < 2:
        raise InputError("all windows are from one document, and contexts can only be exchanged between documents: give more documents")
    other = rng.integers(len(docs_N), size=len(docs_N))
    while len(same := np.flatnonzero(docs_N[other] == docs_N)):
        other[same] = rng.integers(len(docs_N), size=len(same))
    return other


def ablations(
    model: Predictor, baselines: Baselines, dataset: Dataset, windows: Windows, device: torch.device
) -> dict[str, dict[str, MetricDrop]]:
    """By ablation and metric, what `model` and the strongest baseline lose. `dataset` is in the direction that the model reads.

    At most 2,000 of `windows` are used. Raises what `ablated_rows` raises.
    """
    windows = windows.at_most(WINDOWS)
    ref = score_baselines(dataset, windows, baselines, device)
    rows = ablated_rows(windows)

    def scores(rows_NT: np.ndarray) -> Scores:
        return score(*predict_contexts(model, contexts_of_rows(dataset.vectors, rows_NT, device)), ref.targets, ref.pool, windows)

    intact = scores(windows.targets[:, None] + np.arange(-windows.context_length, 0))
    out: dict[str, dict[str, MetricDrop]] = {}
    for name, changed in rows.items():
        own = scores(changed)
        predicted = predict_baselines(baselines, contexts_of_rows(dataset.vectors, changed, device), device)
        out[name] = {}
        for metric, baseline in STRONGEST.items():
            other = score(predicted[baseline], predicted[baseline], ref.targets, ref.pool, windows)
            losses = intact.quantity(metric) - own.quantity(metric), ref.scores[baseline].quantity(metric) - other.quantity(metric)
            each = (document_interval(loss, windows.docs) for loss in (*losses, np.subtract(*losses)))
            out[name][metric] = MetricDrop(*each)
    return out


def predict_baselines(baselines: Baselines, parts: Iterable[torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The predictions [N, D] of the strongest baselines from contexts [B, T, D], which may be shorter than they were fitted for.

    Missing chunks are replaced by the training mean, which weights on centred chunks ignore, as the model's lag weights do.
    """
    found: dict[str, list[torch.Tensor]] = {name: [] for name in STRONGEST.values()}
    fitted = baselines.to(device)
    for part in parts:
        missing = max(0, fitted.context_length - part.shape[1])
        predicted = fitted.predict(torch.cat([fitted.mean.expand(len(part), missing, -1), part], 1))
        for name in found:
            found[name].append(predicted[name])
    return {name: torch.cat(predicted) for name, predicted in found.items()}
