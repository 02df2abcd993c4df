"""Tables of an evaluation: one model beside its baselines, several models beside each other."""

from collections.abc import Mapping
from typing import Any

from lvm.reports.tables.table import Table, interval_text

BASELINE_METRICS = ("cosine", "recall_at_1", "recall_at_5", "mrr")


def model_table(summary: Mapping[str, Any], name: str = "model") -> Table:
    """One model's metrics above those of every baseline, on the same windows; `summary` is an `Evaluation.summary()`."""
    pool = summary["pool"]
    title = (
        f"{name} on {summary['split']}: {pool['queries']} windows of {pool['documents']} documents, context {summary['context_length']}, "
        f"pool {pool['size']} ({pool['sha256'][:8]}), chance R@5 {pool['chance_recall_at_5']:.4f}"
    )
    own = summary["metrics"]
    rows = [[name, *(interval_text(own[m]) for m in BASELINE_METRICS)]]
    for baseline, values in sorted(summary["baselines"].items(), key=lambda item: -item[1]["cosine"]):
        rows.append([baseline, *(f"{values[m]:.4f}" for m in BASELINE_METRICS)])
    best = summary["best_baseline"]
    rows.append([
        "skill over the best baseline",
        f"{interval_text(own['skill_cosine'], True)} over {best['cosine']}",
        f"{interval_text(own['skill_recall_at_1'], True)} over {best['recall_at_1']}",
        f"{interval_text(own['skill_recall_at_5'], True)} over {best['recall_at_5']}",
        f"{interval_text(own['skill_mrr'], True)} over {best['mrr']}",
    ])  # fmt: skip
    return Table(title, ["", *BASELINE_METRICS], rows)


def retrieval_table(summary: Mapping[str, Any], name: str = "model") -> Table:
    """Predict, then retrieve the nearest real chunk to y_cos: the model beside the centred exponentially weighted mean."""
    own, found = summary["metrics"], summary["retrieval"]
    rows = [
        [name, *(interval_text(own[m]) for m in found["lead"])],
        [found["baseline"], *(f"{summary['baselines'][found['baseline']][m]:.4f}" for m in found["lead"])],
        ["lead, window by window", *(interval_text(lead, True) for lead in found["lead"].values())],
    ]
    return Table("Predict, then retrieve, against the centred exponentially weighted mean", ["", *found["lead"]], rows)


def comparison_table(summaries: Mapping[str, Mapping[str, Any]], passed: Mapping[str, bool], champion: str | None) -> Table:
    """Several models beside each other, and the best baseline of each metric; `passed` says which models passed their gates."""
    rows = []
    for name, summary in summaries.items():
        own = summary["metrics"]
        rows.append([
            f"{name} (champion)" if name == champion else name,
            f"{own['cosine']['value']:.4f}",
            interval_text(own["skill_cosine"], True),
            f"{own['recall_at_5']['value']:.4f}",
            interval_text(own["skill_recall_at_5"], True),
            f"{own['shuffle_drop']['value']:+.4f}",
            "pass" if passed[name] else "FAIL",
        ])  # fmt: skip
    first = next(iter(summaries.values()))
    for metric, column in (("cosine", 1), ("recall_at_5", 3)):
        best = first["best_baseline"][metric]
        row = [best, *[""] * 5, "baseline"]
        row[column] = f"{first['baselines'][best][metric]:.4f}"
        rows.append(row)
    columns = ["model", "cosine", "skill_cosine", "recall_at_5", "skill_recall_at_5", "shuffle_drop", "gates"]
    shown = f"Models on {first['split']} documents, context {first['context_length']}"
    title = f"{shown}; skill over the best baseline, 95 % intervals over documents"
    return Table(title, columns, rows)
