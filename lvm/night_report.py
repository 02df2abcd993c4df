"""Tables of a night and of all nights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lvm.report import Rows, interval_text

COMPARED = ("cosine", "skill_cosine", "recall_at_5", "skill_recall_at_5", "shuffle_drop")
SHOWN = 14
"""Nights in the table; the figure has all."""


@dataclass(frozen=True)
class Night:
    """One entry of the record of all nights."""

    date: str
    passed: bool
    champion: str
    """Its version in the registry."""

    metrics: Mapping[str, float]
    """As logged: `night/skill_cosine`, `drift/embedding`, with `_low` and `_high`."""

    def interval(self, metric: str) -> dict[str, float | None] | None:
        """A metric with its ends; None where the night did not measure it."""
        if metric not in self.metrics:
            return None
        return {"value": self.metrics[metric], "low": self.metrics.get(f"{metric}_low"), "high": self.metrics.get(f"{metric}_high")}


def night_rows(summary: Mapping[str, Any], recorded: Mapping[str, float]) -> Rows:
    """The night beside the champion's own test documents, at one pool size, and what was recorded when it was trained.

    `summary` is a `JudgedNight.summary()`.
    """
    night, own = summary["night"], summary["own"]
    drift = {f"skill_{metric}": found["difference"] for metric, found in summary["skill_drift"].items()}
    rows = []
    for metric in COMPARED:
        signed = not metric.startswith(("cosine", "recall"))
        difference = interval_text(drift[metric], True) if metric in drift else ""
        then = f"{recorded[metric]:.4f}" if metric in recorded else ""
        rows.append([
            metric, interval_text(night["metrics"][metric], signed), interval_text(own["metrics"][metric], signed), difference, then
        ])  # fmt: skip
    pool = night["pool"]
    title = (
        f"{pool['documents']} documents of the night beside {own['pool']['documents']} test documents of the champion's own; "
        f"pool {pool['size']}, {pool['dropped_leaked']} chunks that stand in its training data left out"
    )
    return Rows(title, ["", "night", "own test documents", "difference", "recorded"], rows)


def trend_rows(nights: Sequence[Night]) -> Rows:
    """The last nights, the latest first."""
    rows = []
    for night in list(nights)[::-1][:SHOWN]:
        cells = [night.interval(name) for name in ("night/skill_cosine", "night/skill_recall_at_5", "drift/embedding")]
        shown = [interval_text(cell, True) if cell else "" for cell in cells]
        rows.append([night.date, "pass" if night.passed else "BREACH", night.champion, *shown])
    columns = ["night", "verdict", "champion", "skill_cosine", "skill_recall_at_5", "drift of embeddings"]
    return Rows(f"The last {len(rows)} of {len(nights)} nights", columns, rows)
