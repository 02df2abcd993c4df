"""What the gates saw, as figures: order and neighbours of the data, the loss terms of a training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from lvm.atomic_io import replacing
from lvm.config import TERMS, GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.windows import LEAKED_COSINE, nearest_train_cosines
from lvm.evaluation.evaluate import Evaluation
from lvm.evaluation.intervals import Interval
from lvm.gates.data import CPU, lag_profile

NEIGHBOUR_ROWS = 2_000
"""Rows of a split whose nearest training row is looked for: enough for a histogram, and a bound on time in a corpus of millions."""


BINS = np.linspace(0, 1, 51)


def data_figures(dataset: Dataset, folder: Path, device: torch.device = CPU) -> list[Path]:
    """Both figures of the data: `lags.png` and `neighbours.png`."""
    neighbours = {split: neighbour_cosines(dataset, split, device) for split in ("val", "test")}
    return [
        save(lag_profile_figure(*lag_profile(dataset)), folder / "lags.png"),
        save(neighbour_figure(neighbours), folder / "neighbours.png"),
    ]


def lag_profile_figure(profile: Sequence[float], lead: Interval) -> Figure:
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


matplotlib.use("Agg")


COLOURS = {"lstm": "#1f77b4", "gru": "#2ca02c", "mamba2": "#d62728", "transformer": "#9467bd", "amn": "#ff7f0e"}


ENCODER, BASELINE = "black", "#888888"


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, durably, and close it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def colour(name: str) -> str:
    """Colour of a model by its architecture."""
    return COLOURS.get(name, "#17becf")


def evaluation_figures(found: Mapping[str, Evaluation], folder: Path) -> list[Path]:
    """All figures of the models in `found`, which were measured on the same windows."""
    return [
        save(skill_figure(found), folder / "skill.png"),
        save(sigma_figure(found), folder / "sigma.png"),
        save(rank_figure(found), folder / "ranks.png"),
    ]


def skill_figure(found: Mapping[str, Evaluation]) -> Figure:
    """Skill over the best baseline with 95 % intervals, cosine and recall side by side."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 1.6 + 0.5 * len(found)), sharey=True)
    for axis, metric, scale, label in ((axes[0], "cosine", 1.0, "cosine"), (axes[1], "recall_at_5", 100.0, "points of R@5")):
        for i, (name, evaluation) in enumerate(found.items()):
            skill = evaluation.skill(metric)
            low, high = (skill.value if end is None else end for end in (skill.low, skill.high))
            axis.plot([low * scale, high * scale], [i, i], color=colour(name), linewidth=3)
            axis.plot(skill.value * scale, i, "o", color=colour(name))
        best = next(iter(found.values())).best_baseline(metric)
        axis.axvline(0, color=BASELINE, linewidth=1)
        axis.set_xlabel(f"{label} over {best}")
        axis.set_yticks(range(len(found)), list(found))
        axis.set_ylim(-0.6, len(found) - 0.4)
    figure.suptitle(f"Skill on {next(iter(found.values())).split} documents, 95 % intervals")
    return figure


def sigma_figure(found: Mapping[str, Evaluation]) -> Figure:
    """Per-dimension mean and deviation of both heads against the encoder's, dimensions sorted."""
    target = next(iter(found.values())).spreads["target"]
    heads = (("y_dec", "y_dec, raw"), ("y_cos", "y_cos, unit length"))
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.5), sharex=True)
    for column, (head, title) in enumerate(heads):
        raw = head == "y_dec"
        for row, moment in enumerate(("std", "mean")):
            axis = axes[row][column]
            key = f"raw_{moment}" if raw else moment
            values = getattr(target, key)
            order = np.argsort(-values)
            axis.plot(values[order], color=ENCODER, linewidth=2, label="encoder", zorder=5)
            for name, evaluation in found.items():
                axis.plot(getattr(evaluation.spreads[head], key)[order], color=colour(name), alpha=0.7, linewidth=0.8, label=name)
            if raw:
                ridge = getattr(next(iter(found.values())).spreads["ridge"], key)
                axis.plot(ridge[order], color=BASELINE, alpha=0.7, linewidth=0.8, label="ridge")
            axis.set_ylabel("σ" if moment == "std" else "μ")
        axes[0][column].set_title(title)
        axes[1][column].set_xlabel("dimension, sorted by the encoder")
    axes[0][0].legend()
    return figure


def rank_figure(found: Mapping[str, Evaluation]) -> Figure:
    """Share of queries whose answer is among the first k, beside the best baseline and chance."""
    figure, axis = plt.subplots(figsize=(7, 4.5))
    first = next(iter(found.values()))
    size = len(first.windows.pool)
    k = np.unique(np.geomspace(1, size, 200).astype(int))
    best = first.best_baseline("recall_at_5")
    curves = {name: (e.model.ranks, colour(name), "-") for name, e in found.items()}
    curves[f"baseline {best}"] = (first.baselines[best].ranks, BASELINE, "--")
    for name, (ranks, c, style) in curves.items():
        axis.plot(k, np.searchsorted(np.sort(ranks), k, side="right") / len(ranks), style, color=c, label=name)
    axis.plot(k, k / size, ":", color=ENCODER, label="chance")
    axis.set_xscale("log")
    axis.set_xlabel("k")
    axis.set_ylabel("R@k")
    axis.set_title(f"Rank of the true next chunk among {size:,}")
    axis.legend()
    return figure


def lag_figure(found: Mapping[str, Any]) -> Figure:
    """What is lost without the chunk at each lag, the model beside the strongest baseline; `found` is an `explain` result."""
    rivals = found["rivals"]
    figure, axes = plt.subplots(1, len(rivals), figsize=(11, 3.8))
    lags = {int(name.removeprefix("lag ")): each for name, each in found["ablations"].items() if name.startswith("lag ")}
    for axis, (metric, rival) in zip(axes, rivals.items(), strict=True):
        for whose, label, c in (("model", found["model"], colour(found["arch"])), ("baseline", rival, BASELINE)):
            drops = [each[metric][whose] for each in lags.values()]
            ends = [[d["value"] if d[end] is None else d[end] for d in drops] for end in ("low", "high")]
            axis.vlines(list(lags), *ends, color=c, linewidth=3, alpha=0.5)
            axis.plot(list(lags), [d["value"] for d in drops], "o-", color=c, label=label)
        axis.axhline(0, color=BASELINE, linewidth=1)
        axis.set_xlabel("lag of the chunk that is taken away")
        axis.set_ylabel(f"lost {metric}")
        axis.legend()
    figure.suptitle(f"What a context of {found['context_length']} loses, {found['split']} documents, 95 % intervals")
    return figure


def training_figure(metrics_files: Mapping[str, Path]) -> Figure:
    """Loss terms, both skills and y_dec's spread over the steps, a line a model, from metrics.jsonl."""
    panels = (
        ("train/loss_regression", "1 − cosine(y_dec, target)"),
        ("train/loss_infonce", "InfoNCE"),
        ("train/loss_moments", "moment loss"),
        ("val/skill_cosine", "val skill, cosine"),
        ("val/skill_recall_at_5", "val skill, R@5"),
        ("val/sigma_ratio", "val σ ratio of y_dec"),
    )
    figure, axes = plt.subplots(2, 3, figsize=(14, 7))
    for axis, (metric, title) in zip(axes.flat, panels, strict=True):
        for name, file in metrics_files.items():
            events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            points = [(e["step"], e["metrics"][metric]) for e in events if metric in e["metrics"]]
            axis.plot(*zip(*points, strict=True), color=colour(name), label=name)
        if "skill" in metric:
            axis.axhline(0, color=BASELINE, linewidth=1)
        axis.set_title(title)
        axis.set_xlabel("step")
    axes.flat[0].legend()
    figure.tight_layout()
    return figure


def decode_figure(summary: Mapping[str, Any]) -> Figure:
    """Decoded text by length of the true next chunk: the ceiling, the prediction in words, the nearest real chunk.

    `summary` is a `DecodedWindows.summary()`. What lies between ceiling and prediction is the model's.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    arms = {"A: ceiling": ("A", ENCODER), "C: prediction": ("C", colour("")), "nearest real chunk": ("nearest", BASELINE)}
    for axis, (metric, title) in zip(axes, (("bleu", "BLEU"), ("token_f1", "token F1"), ("roundtrip_cosine", "round trip")), strict=True):
        for label, (arm, c) in arms.items():
            lengths = summary["arms"][arm]["by_length"]
            values = [bucket.get(metric, np.nan) for bucket in lengths.values()]  # nothing was decoded of the real chunk
            axis.plot(list(lengths), values, "o-", color=c, label=label)
        axis.set_title(title)
        axis.set_xlabel("tokens of the true next chunk")
        axis.set_ylim(bottom=0)
    axes[0].legend()
    figure.tight_layout()
    return figure
