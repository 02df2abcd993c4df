"""What a model uses of its context: what it loses when a part is moved, removed or exchanged.

Order and distance matter to a baseline too, whose weights prefer the last chunk. So every drop stands beside that of
the strongest baseline of the same metric, given the same contexts: only what exceeds it is the model's own.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from lvm.data.dataset import Dataset
from lvm.data.windows import Windows, contexts_of_rows
from lvm.errors import InputError
from lvm.evaluation.evaluate import Scores, predict_contexts, score, score_baselines
from lvm.evaluation.intervals import Interval, document_bootstrap
from lvm.models import Predictor
from lvm.models.baselines import CENTRED_EWMA, Baselines

STRONGEST_BASELINES = {"cosine": "ridge", "recall_at_5": CENTRED_EWMA}
"""The metrics that are looked at, and the strongest baseline of each."""


WINDOWS = 2_000
"""Windows at most: a fixed sample bounds the time, and the intervals say what it costs."""


NEAR = 8
"""Every lag up to this is removed in turn; farther ones at each doubling, and the farthest."""


@dataclass(frozen=True)
class MetricDrop:
    """What one metric loses against the intact context, window by window; positive is a loss."""

    model: Interval
    baseline: Interval

    excess: Interval
    """The model's loss minus the baseline's."""


def lags(length: int) -> list[int]:
    """Lags at which a chunk is removed from a context of `length`: 1, 2, ... 8, 16, 32, ..., `length`."""
    far = [NEAR * 2**i for i in range(1, length.bit_length()) if NEAR * 2**i < length]
    return sorted({*range(1, min(NEAR, length) + 1), *far, length})


def ablated_rows(windows: Windows, seed: int = 0) -> dict[str, np.ndarray]:
    """By name, the rows [N, T or fewer] that stand in the place of each window's context.

    `lag k` is the context without its chunk at lag k (1 is the last), those before it one nearer. What is left are real chunks
    in their order, and T - 1 of them: a model is trained at every length up to its stretch. The training mean in the chunk's
    place would be a vector that no model has read. `cross_document` keeps the last chunk and takes the others from a
    random window of another document; `last_alone` drops them.

    Raises `InputError` when the context is a single chunk or all windows are of one document.
    """
    length = windows.context_length
    if length < 2:
        raise InputError(f"field 'context_length' is {length}: of a context of one chunk nothing can be taken away; give 2 or more")
    rng = np.random.default_rng(seed)
    rows = windows.targets[:, None] + np.arange(-length, 0)
    order = rng.random(rows.shape).argsort(1)
    out = {"shuffle": np.take_along_axis(rows, order, 1), "reverse": rows[:, ::-1]}
    out |= {"cross_document": np.concatenate([rows[_others(windows.docs, rng), :-1], rows[:, -1:]], 1), "last_alone": rows[:, -1:]}
    return out | {f"lag {lag}": np.delete(rows, length - lag, 1) for lag in lags(length)}


def _others(docs_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each window a random one of another document: int64 [N]."""
    if len(np.unique(docs_N)) < 2:
        raise InputError("the windows are of one document, and another one is needed to exchange contexts with: give more documents")
    other = rng.integers(len(docs_N), size=len(docs_N))
    while len(same := np.flatnonzero(docs_N[other] == docs_N)):
        other[same] = rng.integers(len(docs_N), size=len(same))
    return other


def ablations(
    model: Predictor, baselines: Baselines, dataset: Dataset, windows: Windows, device: torch.device
) -> dict[str, dict[str, MetricDrop]]:
    """By ablation and metric, what `model` and the rival baseline lose. `dataset` is in the direction that the model reads.

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
        rivals = predict_baselines(baselines, contexts_of_rows(dataset.vectors, changed, device))
        out[name] = {}
        for metric, rival in STRONGEST_BASELINES.items():
            other = score(rivals[rival], rivals[rival], ref.targets, ref.pool, windows)
            losses = intact.quantity(metric) - own.quantity(metric), ref.scores[rival].quantity(metric) - other.quantity(metric)
            each = (document_bootstrap(loss, windows.docs) for loss in (*losses, np.subtract(*losses)))
            out[name][metric] = MetricDrop(*each)
    return out


def predict_baselines(baselines: Baselines, parts: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The rival baselines' predictions [N, D] from contexts [B, T, D], also ones that are shorter than they were fitted for.

    What is missing in front counts as the training mean, which is zero to weights on centred chunks: as for
    the model's own lag weights.
    """
    found: dict[str, list[torch.Tensor]] = {name: [] for name in STRONGEST_BASELINES.values()}
    for part in parts:
        missing = max(0, baselines.context_length - part.shape[1])
        mean = baselines.mean.to(part.device).expand(len(part), missing, -1)
        predicted = baselines.predict(torch.cat([mean, part], 1))
        for name in found:
            found[name].append(predicted[name])
    return {name: torch.cat(predicted) for name, predicted in found.items()}
