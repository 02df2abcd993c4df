"""Figures of a training: its curves, and the gradient share of each loss term."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lvm.config import LOSS_TERMS, GateThresholds
from lvm.reports.figures.style import BASELINE, colour


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


def share_figure(measured: Sequence[Mapping[str, float]], name: str, limits: GateThresholds = GateThresholds()) -> Figure:
    """Gradient share of each loss term over the steps of the training of `name`; `measured` as in `loss_balance`.

    A term without any gradient stands at 0, which a logarithm alone could not show.
    """
    figure, axis = plt.subplots(figsize=(7, 4))
    for place, term in enumerate(LOSS_TERMS):
        metric = f"train/gradient_share_{term}"
        points = [(line["step"], line[metric]) for line in measured if metric in line]
        if not points:  # it has no weight
            continue
        axis.plot([x for x, _ in points], [y for _, y in points], "o-", color=plt.get_cmap("viridis")(place / len(LOSS_TERMS)), label=term)
    axis.axhline(limits.gradient_share, color=BASELINE, linestyle=":", label=f"warned of under {limits.gradient_share:g}")
    axis.set_yscale("symlog", linthresh=1e-4)
    axis.set_ylim(0, 1.5)
    axis.set_xlabel("step")
    axis.set_ylabel("share of the largest gradient")
    axis.set_title(f"Who steers {name}" if measured else f"{name}: no gradient shares were recorded")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


matplotlib.use("Agg")
