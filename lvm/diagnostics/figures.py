"""What the gates saw, as figures: order and neighbours of the data, the loss terms of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from lvm.config import GateThresholds
from lvm.corpus.dataset import Dataset
from lvm.diagnostics.data import CPU, lag_profile
from lvm.figures import BASELINE, ENCODER, save
from lvm.losses import TERMS
from lvm.metrics import Interval
from lvm.windows import LEAKED_COSINE, nearest_train_cosines

NEIGHBOUR_ROWS = 2_000
"""Rows of a split whose nearest training row is looked for: enough for a histogram, and a bound on time in a corpus of millions."""

BINS = np.linspace(0, 1, 51)


def data_figures(dataset: Dataset, folder: Path, device: torch.device = CPU) -> list[Path]:
    """Both figures of the data: `lags.png` and `neighbours.png`."""
    neighbours = {split: neighbour_cosines(dataset, split, device) for split in ("val", "test")}
    return [save(lag_figure(*lag_profile(dataset)), folder / "lags.png"), save(neighbour_figure(neighbours), folder / "neighbours.png")]


def lag_figure(profile: Sequence[float], lead: Interval) -> Figure:
    """Mean cosine of two chunks by their distance in the document, beside that of a shuffle; from `lag_profile`."""
    figure, axis = plt.subplots(figsize=(6, 4))
    lags = range(1, len(profile) + 1)
    axis.plot(lags, profile, "o-", color=ENCODER, label="in reading order")
    if profile:
        shuffled = profile[0] - lead.value
        axis.axhline(shuffled, color=BASELINE, linestyle="--", label="shuffled within documents")
        if lead.low is not None and lead.high is not None:
            axis.axhspan(profile[0] - lead.high, profile[0] - lead.low, color=BASELINE, alpha=0.3, label="95 % of its distance to lag 1")
        axis.legend()
    axis.set_xticks(lags)
    axis.set_xlabel("lag, chunks")
    axis.set_ylabel("mean cosine")
    axis.set_title(f"Lag 1 leads a shuffle by {lead}" if profile else "No document is long enough for a lag profile")
    return figure


def neighbour_cosines(dataset: Dataset, split: str, device: torch.device = CPU) -> np.ndarray:
    """Cosine of at most 2,000 random rows of `split` to the nearest training row of each, float32 [N]; empty where there is none."""
    rows = np.sort(np.random.default_rng(0).permutation(dataset.rows(split))[:NEIGHBOUR_ROWS])
    if not len(rows) or not len(dataset.rows("train")):
        return np.zeros(0, np.float32)
    found = nearest_train_cosines(dataset.vectors[rows], dataset, device)
    return found[np.isfinite(found)]


def neighbour_figure(cosines: Mapping[str, np.ndarray]) -> Figure:
    """Histogram, a line a split, of the cosine to the nearest training row: copies stand right of the dotted line."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for (split, found), style in zip(cosines.items(), ("-", "--"), strict=True):
        counts, _ = np.histogram(np.clip(found, 0, 1), BINS)
        share = float((found >= LEAKED_COSINE).mean()) if len(found) else 0.0
        label = f"{split}, {len(found)} rows, {share:.2%} copies" if len(found) else f"{split}, no row"
        axis.stairs(counts / max(len(found), 1), BINS, color=ENCODER, linestyle=style, label=label)
    axis.axvline(LEAKED_COSINE, color=BASELINE, linestyle=":", label=f"copy: {LEAKED_COSINE} and more")
    axis.set_xlabel("cosine to the nearest training chunk")
    axis.set_ylabel("share of rows")
    axis.set_title("Nearest neighbours across splits")
    axis.legend(loc="upper left")
    return figure


def share_figure(measured: Sequence[Mapping[str, float]], name: str, limits: GateThresholds = GateThresholds()) -> Figure:
    """Gradient share of each loss term over the steps of the training of `name`; `measured` as in `loss_balance`.

    A term without any gradient stands at 0, which a logarithm alone could not show.
    """
    figure, axis = plt.subplots(figsize=(7, 4))
    for place, term in enumerate(TERMS):
        metric = f"train/gradient_share_{term}"
        points = [(line["step"], line[metric]) for line in measured if metric in line]
        if not points:  # it has no weight
            continue
        axis.plot([x for x, _ in points], [y for _, y in points], "o-", color=plt.get_cmap("viridis")(place / len(TERMS)), label=term)
    axis.axhline(limits.gradient_share, color=BASELINE, linestyle=":", label=f"warned of under {limits.gradient_share:g}")
    axis.set_yscale("symlog", linthresh=1e-4)
    axis.set_ylim(0, 1.5)
    axis.set_xlabel("step")
    axis.set_ylabel("share of the largest gradient")
    axis.set_title(f"Who steers {name}" if measured else f"{name}: no gradient shares were recorded")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
