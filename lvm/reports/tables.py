"""Tables for people: gates, one model beside its baselines, several models beside each other.

Each function builds a rich table; `markdown` turns the same rows into a Markdown table for
artifacts, so that terminal and report cannot disagree.
"""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from rich.markup import escape
from rich.table import Table

from lvm.gates.result import GateResult

BASELINE_METRICS = ("cosine", "recall_at_1", "recall_at_5", "mrr")


MARKS = {"ok": "pass", "warn": "WARN", "fail": "FAIL"}
"""Verdict of a gate by its severity."""


class Rows:
    """A table as plain strings: a title, column names, rows."""

    def __init__(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.title, self.columns, self.rows = title, columns, rows

    def rich(self) -> Table:
        """For the terminal."""
        wide = len(self.columns) > 6
        table = Table(title=escape(self.title), title_justify="left", pad_edge=not wide)
        for i, column in enumerate(self.columns):
            # Seven columns fit a terminal of 80 characters when long titles stand on several lines, and names of models on one.
            lines = wrap(column.replace("_", "_ "), 10) if wide else [column]
            title = "\n".join(line.replace("_ ", "_") for line in lines)
            least = len("transformer") if wide and not i else None
            table.add_column(escape(title), overflow="fold", justify="right" if wide and i else "left", min_width=least)
        for row in self.rows:
            # An interval stands under its value, or seven columns would not fit a terminal.
            cells = [cell.replace(" [", "\n[") for cell in row] if wide else row
            table.add_row(*map(escape, cells))
        return table

    def markdown(self) -> str:
        """For artifacts and reports."""
        lines = [f"**{self.title}**", "", "| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in self.rows)
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)])


def interval_text(interval: Mapping[str, float | None], sign: bool = False) -> str:
    """`value [low, high]` of an interval in a summary."""
    form = "+.4f" if sign else ".4f"
    if interval["low"] is None:
        return f"{interval['value']:{form}} [too few documents]"
    return f"{interval['value']:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"


def gate_rows(gates: Sequence[GateResult], title: str = "Gates") -> Rows:
    """Verdict, value, threshold and reason of each gate; under one that did not simply pass, the remedy."""
    rows = []
    for g in gates:
        rows.append([g.name, MARKS[g.severity], f"{g.value:.4g}", f"{g.threshold:.4g}", g.reason])
        rows += [["", "remedy", "", "", g.remedy]] if g.remedy else []
    return Rows(title, ["gate", "verdict", "value", "threshold", "reason"], rows)


def model_rows(summary: Mapping[str, Any], name: str = "model") -> Rows:
    """One model's metrics above every baseline's, on the same windows."""
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
    return Rows(title, ["", *BASELINE_METRICS], rows)


def retrieval_rows(summary: Mapping[str, Any], name: str = "model") -> Rows:
    """Predict, then retrieve: real text by the nearest chunk to y_cos, against the centred exponentially weighted mean."""
    own, found = summary["metrics"], summary["retrieval"]
    rows = [
        [name, *(interval_text(own[m]) for m in found["lead"])],
        [found["baseline"], *(f"{summary['baselines'][found['baseline']][m]:.4f}" for m in found["lead"])],
        ["lead, window by window", *(interval_text(lead, True) for lead in found["lead"].values())],
    ]
    return Rows("Predict, then retrieve, against the centred exponentially weighted mean", ["", *found["lead"]], rows)


def comparison_rows(summaries: Mapping[str, Mapping[str, Any]], passed: Mapping[str, bool], champion: str | None) -> Rows:
    """Several models beside each other, and the best baseline of each metric."""
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
    return Rows(title, columns, rows)


def ablation_rows(found: Mapping[str, Any], metric: str) -> Rows:
    """What `metric` loses when a context is changed, the baseline's loss beside it; `found` is of `lvm.evaluation.explain.explain`."""
    rows = []
    for name, each in found["ablations"].items():
        rows.append([name, *(interval_text(each[metric][whose], True) for whose in ("model", "baseline", "excess"))])
    shown = f"{found['windows']} windows of {found['documents']} {found['split']} documents, context {found['context_length']}"
    return Rows(f"{metric} lost when the context is changed: {shown}", ["context", found["model"], found["rivals"][metric], "excess"], rows)


def contrast_rows(found: Mapping[str, Any]) -> Rows:
    """Contrastive accuracy against chunks of the same document."""
    rows = []
    for count, each in found["contrast"].items():
        if each is None:
            rows.append([count, "", "no document has so many", "", "", ""])
            continue
        for name, accuracy in each["accuracy"].items():
            lead = interval_text(each["lead"][name], True) if name in each["lead"] else ""
            rows.append([count, name, interval_text(accuracy), f"{each['chance']:.2f}", lead, str(each["windows"])])
    title = "Share of windows nearer to the true next chunk than to other chunks of its document"
    return Rows(title, ["distractors", "", "accuracy", "chance", "the model's lead", "windows"], rows)


def information_rows(found: Mapping[str, Any]) -> Rows:
    """InfoNCE bounds, and the gain over the last chunk alone."""
    info = found["information"]
    rows = []
    for name, critic in info["critics"].items():
        gain = (
            interval_text(info["gains"][name], True) if name in info["gains"] else "(compared with)" if name == info["last_chunk"] else ""
        )
        rows.append([name, interval_text(critic["bound"]), gain, f"{critic['temperature']:.3f}"])
    title = (
        f"Information about the next chunk, nats: InfoNCE lower bounds, ceiling log {info['candidates']} = {info['ceiling']:.2f}; "
        "gain in log-likelihood of the true next chunk over the best critic of the last chunk (an estimate, no bound)"
    )
    return Rows(title, ["", "at least", "gain", "temperature"], rows)


def direction_rows(forward: Mapping[str, Any], backward: Mapping[str, Any] | None) -> Rows:
    """Skill of a model and of the same model on documents read backwards; each over baselines of its own direction."""
    read = {"from beginning to end": forward} if not forward["reverse"] else {"from end to beginning": forward}
    read |= {"from end to beginning": backward} if backward else {}
    rows = [
        [name, *(f"{interval_text(found['skill'][m], True)} over {found['best_baseline'][m]}" for m in found["skill"])]
        for name, found in read.items()
    ]
    return Rows("Skill by direction", ["documents read", *(f"skill_{metric}" for metric in forward["skill"])], rows)


ARM_LABELS = {
    "nearest": "nearest real chunk",
    "C": "C: the prediction, in words",
    "E": "E: C at the encoder's norm",
    "D": "D: nearest, decoded",
    "copy_last": "last chunk again",
    "A": "A: true next, decoded",
    "B": "B: A at unit length",
}
"""What the table of texts shows, in its order: the real chunk leads, since a conditional mean decodes blandly."""


def arm_rows(summary: Mapping[str, Any]) -> Rows:
    """The text metrics of every arm; `summary` is a `DecodedWindows.summary()`."""
    rows = []
    for name, label in ARM_LABELS.items():
        scores = summary["arms"][name]
        about = summary["about"].get(scores.get("same_as", name))
        rows.append([
            label + (" (is A)" if "same_as" in scores else ""),
            f"{scores['bleu']:.1f}",
            f"{scores['token_f1']:.3f}",
            f"{scores['rouge_l']:.3f}",
            f"{scores['roundtrip_cosine']:.3f}" if "roundtrip_cosine" in scores else "",
            interval_text(about),
            f"{scores['distinct_2']:.2f}",
            f"{scores['repetition']:.2f}",
            f"{scores['exact']:.2f}",
        ])  # fmt: skip
    for other, label in (("copy_last", "the last chunk again"), ("nearest", "the nearest real chunk")):
        rows.append([f"C's lead over {label}", "", "", "", "", interval_text(summary["about"][f"C_over_{other}"], True), "", "", ""])
    title = (
        f"{'Text' if summary['available'] else 'DECODING UNAVAILABLE: text'} of {summary['windows']} windows of {summary['documents']} "
        f"{summary['split']} documents, context {summary['context_length']}; about: cosine to the true next chunk"
    )
    return Rows(title, ["", "BLEU", "token F1", "ROUGE-L", "round trip", "about", "distinct-2", "repeats", "exact"], rows)


def length_rows(summary: Mapping[str, Any]) -> Rows:
    """A, the ceiling, beside C, the prediction, by the true next chunk's length."""
    a, c = (summary["arms"][arm]["by_length"] for arm in ("A", "C"))
    metrics = (("bleu", ".1f"), ("token_f1", ".3f"), ("roundtrip_cosine", ".3f"))
    rows = [[bucket, str(a[bucket]["n"]), *(f"{arm[bucket][m]:{form}}" for m, form in metrics for arm in (a, c))] for bucket in a]
    columns = ["tokens", "windows", "BLEU A", "C", "token F1 A", "C", "round trip A", "C"]
    return Rows("By length of the true next chunk", columns, rows)


def sample_rows(summary: Mapping[str, Any], count: int) -> Rows:
    """The texts of `count` windows, spread over all, under each other."""
    every = summary["samples"]
    rows = []
    for sample in every[:: max(1, len(every) // count)][:count]:
        real = sample["nearest"]
        texts = {
            "last of the context": sample["copy_last"],
            "true next": sample["truth"],
            "nearest real chunk": f"{real['text']} ({place(real)})",
            "C: in words": sample["inverted"],
            "A: ceiling": sample["ceiling"],
        }
        window = f"{sample['doc_id']}:{sample['chunk_index']}"
        rows += [["" if i else window, label, text] for i, (label, text) in enumerate(texts.items())]
    title = "Samples" if summary["available"] else "Samples; DECODING UNAVAILABLE: read neither C nor A as what the model says"
    return Rows(title, ["window", "", "text"], rows)


def ceiling_rows(summary: Mapping[str, Any], name: str) -> Rows:
    """What comes back of real texts, without and with corrections, by length; `summary` is a `Ceiling.summary()`."""
    first, corrected = (summary["scores"][search] for search in ("first", "corrected"))
    pairs = {"all": (first, corrected)} | {b: (first["by_length"][b], corrected["by_length"][b]) for b in first["by_length"]}
    metrics = (("bleu", ".1f"), ("token_f1", ".3f"), ("rouge_l", ".3f"), ("roundtrip_cosine", ".3f"))
    rows = []
    for bucket, pair in pairs.items():
        for label, scores in zip(("first", "corrected"), pair, strict=True):
            head = [bucket, str(scores["n"])] if label == "first" else ["", ""]
            rows.append([*head, label, *(f"{scores[metric]:{form}}" for metric, form in metrics)])
    title = f"{name} on {summary['texts']} texts of {summary['documents']} {summary['split']} documents, never learned from"
    title += f"; first hypotheses, and after {corrected['steps']:.1f} corrections on average"
    return Rows(title, ["tokens", "texts", "", "BLEU", "token F1", "ROUGE-L", "round trip"], rows)


def ceiling_sample_rows(summary: Mapping[str, Any], count: int) -> Rows:
    """`count` texts, spread over all, and what came back of each."""
    every = summary["samples"]
    rows = []
    for sample in every[:: max(1, len(every) // count)][:count]:
        texts = {"text": sample["truth"], "first": sample["first"], "corrected": sample["corrected"]}
        chunk = f"{sample['doc_id']}:{sample['chunk_index']}"
        rows += [["" if i else chunk, label, text] for i, (label, text) in enumerate(texts.items())]
    return Rows("Samples", ["chunk", "", "text"], rows)


def place(chunk: Mapping[str, Any]) -> str:
    """Where a real chunk stands, and how near it is."""
    return f"{chunk['source']}, {chunk['doc_id']}:{chunk['chunk_index']}, cosine {chunk['cosine']:.3f}"


def decoded_rows(results: Sequence[Mapping[str, Any]], decoder: str) -> Rows:
    """Each decoded text, beside the text that was embedded where there was one."""
    rows = []
    for number, found in enumerate(results, 1):
        cosine = f"round trip {found['roundtrip_cosine']:.3f}, step {found['steps']}"
        rows += [[str(number), "given", found["input"]]] if "input" in found else []
        rows.append(["" if "input" in found else str(number), "decoded", f"{found['text']} ({cosine})"])
    return Rows(f"Decoded by {decoder}", ["", "", "text"], rows)


def generated_rows(steps: Sequence[Mapping[str, Any]], context: int) -> Rows:
    """What was predicted, step by step: the nearest real chunk with its source, then the prediction in words."""
    rows = []
    for number, step in enumerate(steps, 1):
        real, inverted = step["nearest"], step["inverted"]
        rows += [[str(number), "nearest real chunk", f"{real['text']} ({place(real)})"]] if real else []
        rows.append(["" if real else str(number), "in words", f"{inverted['text']} (round trip {inverted['roundtrip_cosine']:.3f})"])
    return Rows(f"After a context of {context} chunks", ["step", "", "text"], rows)
