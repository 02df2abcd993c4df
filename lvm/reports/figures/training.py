"""Figures of a training: its curves, and the gradient share of each loss term."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lvm.config import LOSS_TERMS, GateThresholds
from lvm.reports.figures.style import BASELINE, colour

VALIDATION_PANELS = {
    "val/skill_cosine": "val skill, cosine",
    "val/skill_recall_at_1": "val skill, R@1",
    "val/skill_recall_at_5": "val skill, R@5",
    "val/skill_mrr": "val skill, MRR",
    "val/sigma_ratio": "val σ ratio of y_dec",
}

TERM_TITLES = {"regression": "1 − cosine(y_dec, target)", "infonce": "InfoNCE", "moments": "moment loss"}
"""Titles of the loss terms whose name does not say enough."""

COLUMNS = 3


def training_figure(metrics_files: Mapping[str, Path]) -> Figure:
    """The four validation skills, y_dec's spread and every recorded loss term over the steps, a line a model, from metrics.jsonl."""
    events = {name: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for name, file in metrics_files.items()}
    recorded = {metric for lines in events.values() for event in lines for metric in event["metrics"]}
    terms = {f"train/loss_{term}": TERM_TITLES.get(term, f"{term} loss") for term in LOSS_TERMS if f"train/loss_{term}" in recorded}
    panels = VALIDATION_PANELS | terms
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(14, 3.4 * rows), squeeze=False)
    for axis, (metric, title) in zip(axes.flat, panels.items(), strict=False):
        for name, lines in events.items():
            points = [(event["step"], event["metrics"][metric]) for event in lines if metric in event["metrics"]]
            axis.plot(*zip(*points, strict=True), color=colour(name), label=name)
        if "skill" in metric:
            axis.axhline(0, color=BASELINE, linewidth=1)
        axis.set_title(title)
        axis.set_xlabel("step")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    axes.flat[0].legend()
    figure.tight_layout()
    return figure


def share_figure(shares: Sequence[Mapping[str, float]], name: str, limits: GateThresholds) -> Figure:
    """Gradient share of each loss term over the steps of the training of `name`; `shares` as in `CheckpointConfig.gradient_shares`.

    The axis is linear near 0, so that a term without any gradient is visible.
    """
    figure, axis = plt.subplots(figsize=(7, 4))
    for place, term in enumerate(LOSS_TERMS):
        metric = f"train/gradient_share_{term}"
        points = [(line["step"], line[metric]) for line in shares if metric in line]
        if not points:  # it has no weight
            continue
        axis.plot([x for x, _ in points], [y for _, y in points], "o-", color=plt.get_cmap("viridis")(place / len(LOSS_TERMS)), label=term)
    axis.axhline(limits.gradient_share, color=BASELINE, linestyle=":", label=f"loss_balance warns below {limits.gradient_share:g}")
    axis.set_yscale("symlog", linthresh=1e-4)
    axis.set_ylim(0, 1.5)
    axis.set_xlabel("step")
    axis.set_ylabel("share of the largest gradient")
    axis.set_title(f"Gradient shares of {name}" if shares else f"{name}: no gradient shares were recorded")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
