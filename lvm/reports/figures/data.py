"""Figures of a dataset, as the gates see it: order within documents, and nearest neighbours across splits."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from lvm.data.dataset import Dataset
from lvm.data.windows import LEAKED_COSINE, nearest_train_cosines
from lvm.gates.data.order import Order, order_of
from lvm.gates.data.rows import CPU
from lvm.reports.figures.style import BASELINE, ENCODER, save

NEIGHBOUR_ROWS = 2_000
"""Chunks of a split whose nearest training chunk is searched: enough for a histogram, and a bound on time in a corpus of millions."""


BINS = np.linspace(0, 1, 51)
"""Bin edges of the histogram."""


def data_figures(dataset: Dataset, folder: Path, device: torch.device = CPU) -> list[Path]:
    """Both figures of the data: `lags.png` and `neighbours.png`."""
    neighbours = {split: neighbour_cosines(dataset, split, device) for split in ("val", "test")}
    return [
        save(order_figure(order_of(dataset)), folder / "lags.png"),
        save(neighbour_figure(neighbours), folder / "neighbours.png"),
    ]


def order_figure(order: Order) -> Figure:
    """Mean cosine of two sentences by their distance in the document, beside that in a random order of the sentences."""
    profile, lead = order.profile, order.lead
    figure, axis = plt.subplots(figsize=(6, 4))
    lags = range(1, len(profile) + 1)
    axis.plot(lags, profile, "o-", color=ENCODER, label="in reading order")
    if profile:
        shuffled = profile[0] - lead.value
        axis.axhline(shuffled, color=BASELINE, linestyle="--", label="sentences in random order")
        if lead.low is not None and lead.high is not None:
            axis.axhspan(profile[0] - lead.high, profile[0] - lead.low, color=BASELINE, alpha=0.3, label="95 % of its distance to lag 1")
        axis.legend()
    axis.set_xticks(lags)
    axis.set_xlabel("lag, sentences")
    axis.set_ylabel("mean cosine")
    axis.set_title(f"Lag 1 leads a random order by {lead}" if profile else "No document is long enough for a lag profile")
    return figure


def neighbour_cosines(dataset: Dataset, split: str, device: torch.device = CPU) -> np.ndarray:
    """Cosine of up to 2,000 random chunks of `split` to their nearest training chunks, float32 [N]; empty without such chunks."""
    rows = np.sort(np.random.default_rng(0).permutation(dataset.rows(split))[:NEIGHBOUR_ROWS])
    if not len(rows) or not len(dataset.rows("train")):
        return np.zeros(0, np.float32)
    found = nearest_train_cosines(dataset.vectors[rows], dataset, device)
    return found[np.isfinite(found)]


def neighbour_figure(cosines: Mapping[str, np.ndarray]) -> Figure:
    """Histogram, a line a split, of the cosine to the nearest training chunk; copies are to the right of the dotted line."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for (split, found), style in zip(cosines.items(), ("-", "--"), strict=True):
        counts, _ = np.histogram(np.clip(found, 0, 1), BINS)
        share = float((found >= LEAKED_COSINE).mean()) if len(found) else 0.0
        label = f"{split}, {len(found)} rows, {share:.2%} copies" if len(found) else f"{split}, no row"
        axis.stairs(counts / max(len(found), 1), BINS, color=ENCODER, linestyle=style, label=label)
    axis.axvline(LEAKED_COSINE, color=BASELINE, linestyle=":", label=f"copy: {LEAKED_COSINE} or more")
    axis.set_xlabel("cosine to the nearest training chunk")
    axis.set_ylabel("share of rows")
    axis.set_title("Nearest neighbours across splits")
    axis.legend(loc="upper left")
    return figure
