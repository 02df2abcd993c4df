"""Figures of evaluations: skill, moments of the outputs, retrieval ranks."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lvm.evaluation.evaluate import SKILLS, Evaluation
from lvm.reports.figures.style import BASELINE, ENCODER, colour, save


def evaluation_figures(found: Mapping[str, Evaluation], folder: Path) -> list[Path]:
    """All figures of the evaluations in `found`, by model, which must be on the same windows."""
    return [
        save(skill_figure(found), folder / "skill.png"),
        save(sigma_figure(found), folder / "sigma.png"),
        save(rank_figure(found), folder / "ranks.png"),
    ]


def skill_figure(found: Mapping[str, Evaluation]) -> Figure:
    """The four skills over the best baseline of each, with 95 % intervals."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 2.6 + 1.0 * len(found)), sharey=True)
    for axis, metric in zip(axes.flat, SKILLS, strict=True):
        for i, (name, evaluation) in enumerate(found.items()):
            skill = evaluation.skill(metric)
            low, high = (skill.value if end is None else end for end in (skill.low, skill.high))
            axis.plot([low, high], [i, i], color=colour(name), linewidth=3)
            axis.plot(skill.value, i, "o", color=colour(name))
        best = next(iter(found.values())).best_baseline(metric)
        axis.axvline(0, color=BASELINE, linewidth=1)
        axis.set_xlabel(f"{metric} over {best}")
        axis.set_yticks(range(len(found)), list(found))
        axis.set_ylim(-0.6, len(found) - 0.4)
    figure.suptitle(f"Skill on {next(iter(found.values())).split} documents, 95 % intervals")
    figure.tight_layout()
    return figure


def sigma_figure(found: Mapping[str, Evaluation]) -> Figure:
    """Deviation and mean of each dimension of both heads beside the encoder's, dimensions sorted by the encoder's."""
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
    """Recall@k for all k, beside the best baseline and chance."""
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
