"""Gate: contexts belong to their targets, and vectors to their texts."""

from dataclasses import dataclass

import numpy as np
import torch

from lvm.config import GATES, GateThresholds
from lvm.data.dataset import Dataset
from lvm.evaluation.intervals import MIN_DOCUMENTS, Interval, document_interval
from lvm.gates.data.places import Places
from lvm.gates.data.rows import CPU, MORE_DOCUMENTS, most_often, unit_rows
from lvm.gates.result import GateResult, gate_result

SAME_TEXT_COSINE = 0.99
"""Vectors of equal texts are at least so alike: an encoder's rounding leaves .9998 or more."""


CHANCE = 3.0
"""Standard errors above which a lead is no chance: exchanged rows get there once in 700 times."""


@dataclass(frozen=True)
class Lead:
    """By how much the cosine of context and target exceeds that of random pairs."""

    interval: Interval
    """The mean over windows, with its interval over documents."""

    chance: float
    """Its standard error if windows were independent, as they are where rows were exchanged at random."""

    windows: int
    """Chunks that have another before them."""

    def above_zero(self) -> bool:
        """Whether it is too high for exchanged rows."""
        return self.interval.value > CHANCE * self.chance


@GATES.register("pairing", stage="data")
def pairing(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """Each split's targets follow their contexts, and equal texts have equal vectors.

    A split's lead is the mean cosine of last context chunk and target, less that of the same context chunk and a random chunk of
    another document of the split. Where rows were exchanged it is 0. Each split is compared with itself: splits of few documents may
    well be of different kinds of text.

    Fails when a lead is not above 0 by `CHANCE` of the standard errors that it has where all rows were exchanged. Its interval over
    documents is shown beside it: that one is wide where few documents differ, though none of their rows were exchanged. With too few
    documents for an interval it warns: two documents of one series may have no lead. Fails as well when a split has no two chunks in
    a row, when window keys are not distinct, or when rows of one text have different vectors, since then vectors stand beside the
    texts of other rows. Where only some chunks were exchanged, many of these fit better nearly everywhere else than where they stand:
    fails when there are surely more than `misplaced_chunks`, and warns when there are more than half of that.
    """
    sums = document_sums_of_units(dataset)
    leads = {}
    for split in ("train", "val", "test"):
        lead = lead_over_other_documents(dataset, split, sums)
        if not lead.windows:
            reason = f"split '{split}' has no chunk with another before it, so that nothing can be compared"
            return gate_result("pairing", 0.0, 0.0, True, reason, MORE_DOCUMENTS)
        leads[split] = lead
    keys = dataset.row_doc.astype(np.int64) << 32 | dataset.chunk_index.astype(np.int64)
    unique = len(np.unique(keys)) / dataset.n_rows
    other = other_vectors_of_equal_texts(dataset)
    not_above = {split: lead.interval for split, lead in leads.items() if not lead.above_zero()}
    random = [split for split, lead in not_above.items() if lead.low is not None]
    shown = ", ".join(f"{split} {lead.interval}" for split, lead in leads.items())
    reason = f"lead of cosine(last context, target) over random pairs: {shown}; distinct window keys {unique:.1%}"
    if random:
        reason += f". In {', '.join(random)} contexts and targets come from different rows"
    elif not_above:
        reason += f". {', '.join(not_above)} may hold random pairs, or too few documents to show that they do not"
    if len(other):
        reason += f". {len(other)} chunks have another vector than a chunk of the same text, most in {most_often(dataset, other)}"
    misplaced = Places(dataset).misplaced(dataset.docs("all"))
    astray, perhaps = (misplaced.surely_over(share * limits.misplaced_chunks) for share in (1.0, 0.5))
    if perhaps:
        reason += f". Chunks fit better nearly everywhere else than where they stand, as if {misplaced.share:.0%} had been exchanged"
    failed = bool(random) or bool(len(other)) or astray or unique < limits.pairing_unique
    lowest = min(lead.interval.value for lead in leads.values())
    return gate_result("pairing", lowest, 0.0, failed, reason, "extract again, or give more documents", bool(not_above) or perhaps)


def document_sums_of_units(dataset: Dataset) -> np.ndarray:
    """Sum of the unit vectors of each document, float64 [n_docs, D]."""
    spans = zip(dataset.starts[:-1], dataset.starts[1:], strict=True)
    return np.array([unit_rows(dataset, start, stop).sum(0, dtype=np.float64) for start, stop in spans])


def lead_over_other_documents(dataset: Dataset, split: str, sums_ND: np.ndarray) -> Lead:
    """Mean cosine of neighbours, less the mean cosine to all chunks of the split's other documents.

    `sums_ND` are those of `document_sums_of_units`. For a split of too few documents for an interval the others are those of the whole
    dataset: two documents may be of one series. A dataset of one document has no others, and there nothing is subtracted.
    """
    docs, values, owners = dataset.docs(split), [], []
    among = docs if len(docs) >= MIN_DOCUMENTS else dataset.docs("all")
    total, rows = sums_ND[among].sum(0), int(np.diff(dataset.starts)[among].sum())
    for doc in docs:
        x = unit_rows(dataset, dataset.starts[doc], dataset.starts[doc + 1])
        others = (total - sums_ND[doc]) / max(rows - len(x), 1)
        values.append((x[:-1] * x[1:]).sum(1) - x[:-1] @ others)
        owners.append(np.full(len(x) - 1, doc))
    leads = np.concatenate(values) if values else np.zeros(0)
    if not len(leads):
        return Lead(Interval(0.0, None, None), 0.0, 0)
    return Lead(document_interval(leads, np.concatenate(owners)), float(leads.std() / np.sqrt(len(leads))), len(leads))


def other_vectors_of_equal_texts(dataset: Dataset) -> np.ndarray:
    """Rows whose vector differs from that of the first row of the same text, int64; vectors that are zero or not finite are left out."""
    _, first, text = np.unique(dataset.text_codes, return_index=True, return_inverse=True)
    rows = np.flatnonzero(first[text] != np.arange(dataset.n_rows))
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(rows), 65_536):
        part = rows[start : start + 65_536]
        one, two = (np.asarray(dataset.vectors[r], np.float64) for r in (part, first[text[part]]))
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            cosines = (one * two).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1))
        found.append(part[cosines < SAME_TEXT_COSINE])
    return np.concatenate(found)
