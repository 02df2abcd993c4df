"""Tables of `lvm explain`: what a model uses of its context, and how much it knows about the next chunk."""

from collections.abc import Mapping
from typing import Any

from lvm.reports.tables.table import Table, interval_text


def ablation_table(found: Mapping[str, Any], metric: str) -> Table:
    """Loss in `metric` of model and baseline when the context is changed; `found` is a result of `lvm.evaluation.explain.explain`."""
    rows = []
    for name, each in found["ablations"].items():
        rows.append([name, *(interval_text(each[metric][whose], True) for whose in ("model", "baseline", "excess"))])
    shown = f"{found['windows']} windows of {found['documents']} {found['split']} documents, context {found['context_length']}"
    return Table(
        f"{metric} lost when the context is changed: {shown}", ["context", found["model"], found["rivals"][metric], "excess"], rows
    )


def contrast_table(found: Mapping[str, Any]) -> Table:
    """Contrastive accuracy against chunks of the same document."""
    rows = []
    for count, each in found["contrast"].items():
        if each is None:
            rows.append([count, "", "no document has enough chunks", "", "", ""])
            continue
        for name, accuracy in each["accuracy"].items():
            lead = interval_text(each["lead"][name], True) if name in each["lead"] else ""
            rows.append([count, name, interval_text(accuracy), f"{each['chance']:.2f}", lead, str(each["windows"])])
    title = "Share of windows nearer to the true next chunk than to other chunks of its document"
    return Table(title, ["distractors", "", "accuracy", "chance", "the model's lead", "windows"], rows)


def information_table(found: Mapping[str, Any]) -> Table:
    """InfoNCE bounds, and the gain over the last chunk only."""
    info = found["information"]
    rows = []
    for name, critic in info["critics"].items():
        gain = "(compared with)" if name == info["last_chunk"] else ""
        if name in info["gains"]:
            gain = interval_text(info["gains"][name], True)
        rows.append([name, interval_text(critic["bound"]), gain, f"{critic['temperature']:.3f}"])
    title = (
        f"Information about the next chunk, nats: InfoNCE lower bounds, ceiling log {info['candidates']} = {info['ceiling']:.2f}; "
        "gain in log-likelihood of the true next chunk over the best critic of the last chunk (an estimate, not a bound)"
    )
    return Table(title, ["", "at least", "gain", "temperature"], rows)


def direction_table(forward: Mapping[str, Any], backward: Mapping[str, Any] | None) -> Table:
    """Skill of a model and of the same model on documents read backwards, each over the best baseline of its direction."""
    read = {"from beginning to end": forward} if not forward["reverse"] else {"from end to beginning": forward}
    read |= {"from end to beginning": backward} if backward else {}
    rows = [
        [f"skill_{m}", *(f"{interval_text(found['skill'][m], True)} over {found['best_baseline'][m]}" for found in read.values())]
        for m in forward["skill"]
    ]
    return Table("Skill by direction in which documents are read", ["", *read], rows)
