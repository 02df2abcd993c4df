"""Tables of an evaluation: one model beside its baselines, several models beside each other."""

from collections.abc import Mapping
from typing import Any

from lvm.evaluation.evaluate import SKILLS
from lvm.reports.tables.table import Table, interval_text


def model_table(summary: Mapping[str, Any], name: str = "model") -> Table:
    """One model's metrics above those of every baseline, on the same windows; `summary` is an `Evaluation.summary()`."""
    pool = summary["pool"]
    title = (
        f"{name} on {summary['split']}: {pool['queries']} windows of {pool['documents']} documents, context {summary['context_length']}, "
        f"pool {pool['size']} ({pool['sha256'][:8]}), chance R@5 {pool['chance_recall_at_5']:.4f}"
    )
    rows = [[name, *(interval_text(summary["metrics"][metric]) for metric in SKILLS)]]
    for baseline, values in sorted(summary["baselines"].items(), key=lambda item: -item[1]["cosine"]):
        rows.append([baseline, *(f"{values[metric]:.4f}" for metric in SKILLS)])
    rows.append(["skill over the best baseline", *(skill_over_best(summary, metric) for metric in SKILLS)])
    return Table(title, ["", *SKILLS], rows)


def skill_over_best(summary: Mapping[str, Any], metric: str) -> str:
    """The skill in `metric` with its interval, and the baseline that it is over."""
    return f"{interval_text(summary['metrics'][f'skill_{metric}'], True)} over {summary['best_baseline'][metric]}"


def comparison_table(summaries: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, str], champion: str | None) -> Table:
    """Several models beside each other, metric by metric, above the best baseline of each; below them what their gates say.

    `verdicts` is `lvm.gates.result.verdict` of each model's gates. Models are compared downwards, so that four skills with
    their intervals fit a terminal.
    """
    first = next(iter(summaries.values()))
    marked = {name: f"{name} (champion)" if name == champion else name for name in summaries}
    rows: list[list[str]] = []
    for metric in SKILLS:
        for name, summary in summaries.items():
            own = summary["metrics"]
            rows.append([metric, marked[name], f"{own[metric]['value']:.4f}", interval_text(own[f"skill_{metric}"], True)])
        best = first["best_baseline"][metric]
        rows.append([metric, best, f"{first['baselines'][best][metric]:.4f}", "the best baseline"])
    rows += [
        ["shuffle_drop", marked[name], f"{summary['metrics']['shuffle_drop']['value']:+.4f}", ""] for name, summary in summaries.items()
    ]
    rows += [["gates (val)", marked[name], "", verdicts[name]] for name in summaries]
    title = f"Models on {first['split']} documents, context {first['context_length']}, beside the best baselines"
    return Table(title, ["metric", "model", "value", "skill [95 % interval]"], rows)
