"""Tables of decoded text: its quality, samples, and what a decoder recovers of real text."""

from collections.abc import Mapping, Sequence
from typing import Any

from lvm.reports.tables.table import Table, interval_text

ARM_LABELS = {
    "nearest": "nearest real chunk",
    "C": "C: the prediction, in words",
    "E": "E: C at the encoder's norm",
    "D": "D: nearest, decoded",
    "copy_last": "last chunk again",
    "A": "A: true next, decoded",
    "B": "B: A at unit length",
}
"""Rows of the table of texts, in order. The real chunk comes first: a prediction is a conditional mean and decodes to bland text."""


def arm_table(summary: Mapping[str, Any]) -> Table:
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
        rows.append([f"C minus {label}", "", "", "", "", interval_text(summary["about"][f"C_over_{other}"], True), "", "", ""])
    title = (
        f"{'Text' if summary['available'] else 'DECODING UNAVAILABLE: text'} of {summary['windows']} windows of {summary['documents']} "
        f"{summary['split']} documents, context {summary['context_length']}; about: cosine to the true next chunk"
    )
    return Table(title, ["", "BLEU", "token F1", "ROUGE-L", "round trip", "about", "distinct-2", "repeats", "exact"], rows)


def length_table(summary: Mapping[str, Any]) -> Table:
    """A, the ceiling, beside C, the prediction, by the length of the true next chunk."""
    a, c = (summary["arms"][arm]["by_length"] for arm in ("A", "C"))
    metrics = (("bleu", ".1f"), ("token_f1", ".3f"), ("roundtrip_cosine", ".3f"))
    rows = [[bucket, str(a[bucket]["n"]), *(f"{arm[bucket][m]:{form}}" for m, form in metrics for arm in (a, c))] for bucket in a]
    columns = ["tokens", "windows", "BLEU A", "C", "token F1 A", "C", "round trip A", "C"]
    return Table("By length of the true next chunk", columns, rows)


def sample_table(summary: Mapping[str, Any], count: int) -> Table:
    """The texts of `count` windows, spread evenly over all of them."""
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
    title = "Samples" if summary["available"] else "Samples; DECODING UNAVAILABLE: C and A say nothing about the model"
    return Table(title, ["window", "", "text"], rows)


def ceiling_table(summary: Mapping[str, Any], name: str) -> Table:
    """How well real texts are recovered, without and with corrections, by length; `summary` is a `DecodedTexts.summary()`."""
    first, corrected = (summary["scores"][search] for search in ("first", "corrected"))
    pairs = {"all": (first, corrected)} | {b: (first["by_length"][b], corrected["by_length"][b]) for b in first["by_length"]}
    metrics = (("bleu", ".1f"), ("token_f1", ".3f"), ("rouge_l", ".3f"), ("roundtrip_cosine", ".3f"))
    rows = []
    for bucket, pair in pairs.items():
        for label, scores in zip(("first", "corrected"), pair, strict=True):
            head = [bucket, str(scores["n"])] if label == "first" else ["", ""]
            rows.append([*head, label, *(f"{scores[metric]:{form}}" for metric, form in metrics)])
    title = f"{name} on {summary['texts']} texts of {summary['documents']} {summary['split']} documents that it was not trained on"
    title += f"; first hypotheses, and after {corrected['steps']:.1f} corrections on average"
    return Table(title, ["tokens", "texts", "", "BLEU", "token F1", "ROUGE-L", "round trip"], rows)


def ceiling_sample_table(summary: Mapping[str, Any], count: int) -> Table:
    """`count` texts, spread evenly over all of them, and what each was decoded to."""
    every = summary["samples"]
    rows = []
    for sample in every[:: max(1, len(every) // count)][:count]:
        texts = {"text": sample["truth"], "first": sample["first"], "corrected": sample["corrected"]}
        chunk = f"{sample['doc_id']}:{sample['chunk_index']}"
        rows += [["" if i else chunk, label, text] for i, (label, text) in enumerate(texts.items())]
    return Table("Samples", ["chunk", "", "text"], rows)


def place(chunk: Mapping[str, Any]) -> str:
    """Source and position of a real chunk, and its cosine."""
    return f"{chunk['source']}, {chunk['doc_id']}:{chunk['chunk_index']}, cosine {chunk['cosine']:.3f}"


def decoded_table(results: Sequence[Mapping[str, Any]], decoder: str) -> Table:
    """Each decoded text, below the embedded text if there was one."""
    rows = []
    for number, found in enumerate(results, 1):
        cosine = f"round trip {found['roundtrip_cosine']:.3f}, step {found['steps']}"
        rows += [[str(number), "given", found["input"]]] if "input" in found else []
        rows.append(["" if "input" in found else str(number), "decoded", f"{found['text']} ({cosine})"])
    return Table(f"Decoded by {decoder}", ["", "", "text"], rows)


def generated_table(steps: Sequence[Mapping[str, Any]], context: int) -> Table:
    """The predictions step by step: the nearest real chunk with its source, then the decoded prediction."""
    rows = []
    for number, step in enumerate(steps, 1):
        real, inverted = step["nearest"], step["inverted"]
        rows += [[str(number), "nearest real chunk", f"{real['text']} ({place(real)})"]] if real else []
        rows.append(["" if real else str(number), "in words", f"{inverted['text']} (round trip {inverted['roundtrip_cosine']:.3f})"])
    return Table(f"After a context of {context} chunks", ["step", "", "text"], rows)
