"""Gate: each chunk is stored once."""

import numpy as np
import torch

from lvm.config import GATES, GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.vectors import unusable_rows
from lvm.evaluation.intervals import Interval, document_interval
from lvm.gates.data.rows import CPU, most_often, unit_rows
from lvm.gates.result import GateResult, gate_result

ADJACENT_COSINE = 0.98
"""Adjacent chunks of a document above this cosine count as nearly equal."""


STRETCH = 5
"""So many texts in a row that occur again are a copy of a passage, and not lines that happen to recur."""

STORED_TWICE = "extract again, each document once"
ALIKE = "leave out tables and lists of like lines, or choose an encoder that reads these texts, such as a multilingual one"


@GATES.register("duplicates", stage="data", nightly=True)
def duplicates(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """No chunk is stored twice, no vector is zero or not finite, few adjacent chunks are nearly equal, and few passages occur again.

    Nearly equal neighbours fail when their share is surely over `adjacent_duplicates`: the whole interval over documents, since a
    single table of numbers has many. With a higher share that is not sure it warns.
    """
    keys = dataset.row_doc.astype(np.int64) << 32 | dataset.chunk_index.astype(np.int64)
    repeated = np.setdiff1d(np.arange(dataset.n_rows), np.unique(keys, return_index=True)[1])
    bad = unusable_rows(dataset.vectors)
    near, share = near_equal(dataset)
    again = repeated_stretches(dataset)
    again_share = len(again) / dataset.n_rows
    problems = []
    if len(repeated):
        problems.append(f"{len(repeated)} keys (doc_id, chunk_index) occur twice, most in {most_often(dataset, repeated)}")
    if len(bad):
        problems.append(f"{len(bad)} vectors are zero or not finite, most in {most_often(dataset, bad)}")
    many, apart = share.value > limits.adjacent_duplicates, apart_in_text(dataset, near)
    if surely_over(share, limits.adjacent_duplicates):
        found = f"{share.value:.1%} of neighbouring chunks have cosine > {ADJACENT_COSINE}, most in {most_often(dataset, near)}"
        problems.append(f"{found}: {'the encoder cannot tell their texts apart' if apart else 'chunks were stored twice'}")
    if again_share > limits.repeated_text:
        found = f"{again_share:.1%} of the chunks are in passages that occur again, most in {most_often(dataset, again)}"
        problems.append(f"{found}: text was stored twice")
    reason = f"no repeated key, no bad vector, {share.value:.2%} of neighbours nearly equal"
    if problems:
        reason = "; ".join(problems)
    elif many:
        reason += f", most in {most_often(dataset, near)}"
    remedies = [ALIKE] if many and apart else []
    if len(repeated) or len(bad) or again_share > limits.repeated_text or not remedies:
        remedies.insert(0, STORED_TWICE)
    return gate_result("duplicates", share.value, limits.adjacent_duplicates, bool(problems), reason, "; ".join(remedies), many)


def apart_in_text(dataset: Dataset, near: np.ndarray) -> bool:
    """Whether most of the rows `near`, whose vectors are nearly those of the next rows, have other texts than these."""
    return dataset.has_texts and 2 * int((dataset.text_codes[near] != dataset.text_codes[near + 1]).sum()) > len(near)


def surely_over(share: Interval, limit: float) -> bool:
    """Whether the whole interval is over the limit; where there is none, the value."""
    return (share.value if share.low is None else share.low) > limit


def near_equal(dataset: Dataset) -> tuple[np.ndarray, Interval]:
    """Rows that are nearly equal to the next of their document, int64, and their share of all that have a next one."""
    near, owners = [np.zeros(0, bool)], [np.zeros(0, np.int64)]
    rows = [np.zeros(0, np.int64)]
    for start in range(0, dataset.n_rows, 65_536):
        stop = min(start + 65_536, dataset.n_rows)
        x = unit_rows(dataset, start, min(stop + 1, dataset.n_rows))
        docs = dataset.row_doc[start : start + len(x)]
        same = docs[:-1] == docs[1:]
        found = ((x[:-1] * x[1:]).sum(1) > ADJACENT_COSINE)[same]
        near.append(found)
        owners.append(docs[:-1][same])
        rows.append(start + np.flatnonzero(same)[found])
    values = np.concatenate(near).astype(float)
    if not len(values):
        return rows[0], Interval(0.0, None, None)
    return np.concatenate(rows), document_interval(values, np.concatenate(owners))


def repeated_stretches(dataset: Dataset) -> np.ndarray:
    """Rows in a run of five texts of one document that occurred in the same order before, there or in another document: int64."""
    codes = dataset.text_codes.astype(np.int64)
    starts = np.arange(dataset.n_rows - STRETCH + 1)
    starts = starts[dataset.row_doc[starts] == dataset.row_doc[starts + STRETCH - 1]] if len(starts) else starts
    runs = codes[starts]
    for step in range(1, STRETCH):  # numbers for the runs of two texts, of three, ...: sorting pairs is cheaper than sorting rows
        runs = np.unique(runs * (codes.max() + 1) + codes[starts + step], return_inverse=True)[1]
    first = np.unique(runs, return_index=True)[1]
    again = np.delete(starts, first)
    return np.unique((again[:, None] + np.arange(STRETCH)).ravel())
