"""Tables and figures of one nightly validation, and of all nights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lvm.config import GateThresholds
from lvm.evaluation.evaluate import SKILLS
from lvm.evaluation.intervals import document_sums
from lvm.gates.evaluate_night import NightEvaluation
from lvm.reports.figures.style import BASELINE, ENCODER, OTHER
from lvm.reports.tables.table import Table, interval_text

COMPARED = (*(f"{kind}{metric}" for metric in SKILLS for kind in ("", "skill_")), "shuffle_drop")
"""Rows of the table of a night."""


SHOWN = 14
"""Nights that the table shows; the figure shows all."""


@dataclass(frozen=True)
class NightEntry:
    """One night in the history of nightly validations."""

    date: str
    gate: str
    """'pass', 'warn' or 'fail': the worst result of its gates."""

    champion: str
    """The champion's version in the registry."""

    metrics: Mapping[str, float]
    """As logged: `night/skill_cosine`, `drift/embedding`, with `_low` and `_high`."""

    def interval(self, metric: str) -> dict[str, float | None] | None:
        """A metric with its interval; None if the night has no such metric."""
        if metric not in self.metrics:
            return None
        return {"value": self.metrics[metric], "low": self.metrics.get(f"{metric}_low"), "high": self.metrics.get(f"{metric}_high")}


def night_table(summary: Mapping[str, Any], recorded: Mapping[str, float]) -> Table:
    """The night beside the champion's own test documents, at one pool size, and the metrics recorded at training.

    `summary` is a `NightEvaluation.summary()`.
    """
    night, own = summary["night"], summary["own"]
    drift = {f"skill_{metric}": found["difference"] for metric, found in summary["skill_drift"].items()}
    rows = []
    for metric in COMPARED:
        signed = metric not in SKILLS
        difference = interval_text(drift[metric], True) if metric in drift else ""
        then = f"{recorded[metric]:.4f}" if metric in recorded else ""
        rows.append([
            metric, interval_text(night["metrics"][metric], signed), interval_text(own["metrics"][metric], signed), difference, then
        ])  # fmt: skip
    pool = night["pool"]
    title = (
        f"{pool['documents']} documents of the night beside {own['pool']['documents']} test documents of the champion's own; "
        f"pool {pool['size']}, {pool['dropped_leaked']} chunks that are in its training data left out"
    )
    return Table(title, ["", "night", "own test documents", "difference", "recorded"], rows)


def trend_table(nights: Sequence[NightEntry]) -> Table:
    """The last nights, the latest first."""
    rows = []
    for night in list(nights)[::-1][:SHOWN]:
        cells = [night.interval(name) for name in (*(f"night/skill_{metric}" for metric in SKILLS), "drift/embedding")]
        shown = [interval_text(cell, True) if cell else "" for cell in cells]
        rows.append([night.date, RESULTS[night.gate], night.champion, *shown])
    columns = ["night", "result", "champion", *(f"skill_{metric}" for metric in SKILLS), "drift of embeddings"]
    return Table(f"The last {len(rows)} of {len(nights)} nights", columns, rows)


RESULTS = {"pass": "pass", "warn": "WARN", "fail": "BREACH"}
"""How the result of a night is shown."""


COLOURS = {"pass": OTHER, "warn": "#ff7f0e", "fail": "#d62728"}
"""Colours of a night by its result: a warning is orange, a breach red."""


DATES = 12
"""Most labels on the axis of dates."""


def night_figure(result: NightEvaluation) -> Figure:
    """Skill by document, a point each: the night's documents and the champion's own test documents."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.4))
    for axis, metric in zip(axes.flat, SKILLS, strict=True):
        for height, (label, found, c) in enumerate((("own test documents", result.own, BASELINE), ("night", result.night, OTHER))):
            sums, counts = document_sums(found.skills(metric), found.windows.docs)
            spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(sums))
            axis.scatter(sums / counts, height + spread, s=4 + counts / 20, color=c, alpha=0.5, label=label)
            axis.plot([found.skills(metric).mean()] * 2, [height - 0.35, height + 0.35], color=ENCODER, linewidth=2)
        axis.axvline(0, color=BASELINE, linewidth=1)
        axis.set_yticks([0, 1], ["own test\ndocuments", "night"])
        axis.set_xlabel(f"skill, {metric}; a point is a document, black the mean")
    figure.tight_layout()
    return figure


def trend_figure(nights: Sequence[NightEntry], limits: GateThresholds) -> Figure:
    """All nights: the four skills beside those on the own test documents, and the drift of embeddings, in the colour of the result."""
    figure, axes = plt.subplots(len(SKILLS) + 1, 1, figsize=(10, 12), sharex=True)
    for axis, metric in zip(axes, SKILLS, strict=False):
        _panel(axis, nights, f"night/skill_{metric}", f"own/skill_{metric}", f"skill, {metric}")
    last = axes[-1]
    _panel(last, nights, "drift/embedding", None, "drift of embeddings")
    last.axhline(limits.embedding_drift, color=COLOURS["fail"], linewidth=1, linestyle="--", label="threshold")
    for axis in axes:
        axis.axhline(0, color=BASELINE, linewidth=1)
        axis.legend(loc="upper left")
    days = np.array([night.date for night in nights], "datetime64[D]")
    last.set_xlim(days[0] - 1, days[-1] + 1)
    last.set_xticks(days[:: -(-len(days) // DATES)], [str(day) for day in days[:: -(-len(days) // DATES)]], rotation=30)
    figure.suptitle(f"Nights: {len(nights)}, 95 % intervals; orange: warning, red: breach")
    return figure


def _panel(axis: Axes, nights: Sequence[NightEntry], metric: str, own: str | None, title: str) -> None:
    """One metric over the nights with its intervals, and as a line the same metric on the own test documents."""
    measured = [(night, found) for night in nights if (found := night.interval(metric))]
    for night, found in measured:
        c = COLOURS[night.gate]
        value = float(found["value"] or 0.0)
        low, high = (value if end is None else end for end in (found["low"], found["high"]))
        axis.plot(np.array([night.date] * 2, "datetime64[D]"), [low, high], color=c, linewidth=2)
        axis.plot(np.array([night.date], "datetime64[D]"), [value], "o", color=c)
    if own:
        days = np.array([night.date for night, _ in measured], "datetime64[D]")
        axis.plot(days, [night.metrics[own] for night, _ in measured], ".-", color=ENCODER, linewidth=1, label="own test documents")
    axis.set_ylabel(title)
