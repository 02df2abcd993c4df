"""Gate: the splits are separate."""

from dataclasses import dataclass

import numpy as np
import torch

from lvm.config import GATES, GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.windows import leaked_rows
from lvm.gates.data.rows import CPU, MORE_DOCUMENTS, most_often
from lvm.gates.result import GateResult, gate_result


@dataclass(frozen=True)
class Leak:
    """What a split has in common with train."""

    rows: np.ndarray
    """int64: rows whose text, or nearly whose vector, is in train. They are never scored."""

    share: float
    """Of the split's chunks."""

    own_share: float
    """The same without boilerplate, and without the document that has most: one of a series has much in common with the others."""

    documents: list[str]
    """Documents of which more than half of the chunks are in train."""

    documents_share: float
    """Share of the split's chunks that is in these documents."""


@GATES.register("split_leakage", stage="data")
def split_leakage(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """No document is in two splits, and few evaluation chunks have their content in train as well.

    Such chunks (equal text, or a cosine of .995 or more) are never scored. Fails when a document is in two splits, when more than
    `leaked_rows_fail` of the chunks of a split are in train, boilerplate and the document with most of them left out, or when more than
    `copied_documents` of them are in documents that train mostly holds. Extraction puts documents of much common text into one split,
    so that such documents show that the splits were made in another way. Warns above `leaked_rows_warn`.
    """
    torn = documents_in_two_splits(dataset)
    if torn:
        reason = f"{len(torn)} documents are in two splits: {torn[:5]}"
        return gate_result("split_leakage", float(len(torn)), 0.0, True, reason, "split by document, extract again")
    for split in ("train", "val", "test"):
        if not len(dataset.rows(split)):
            reason = f"split '{split}' is empty, so that nothing can be {'learned' if split == 'train' else 'evaluated'}"
            return gate_result("split_leakage", 1.0, limits.leaked_rows_fail, True, reason, MORE_DOCUMENTS)
    leaks = {split: leak(dataset, split, device) for split in ("val", "test")}
    own = max(found.own_share for found in leaks.values())
    copied = {split: found for split, found in leaks.items() if found.documents_share > limits.copied_documents}
    shown = ", ".join(f"{split} {found.share:.2%}" for split, found in leaks.items())
    reason = f"chunks that are in train as well: {shown}, left out of scoring; {own:.2%} without boilerplate and the document with most"
    failed, warned = own > limits.leaked_rows_fail or bool(copied), own > limits.leaked_rows_warn
    for split, found in copied.items():
        reason += f"; {split} has {found.documents_share:.2%} of its chunks in documents that train mostly holds: {found.documents[:5]}"
    if failed or warned:
        reason += f"; most in {most_often(dataset, np.concatenate([found.rows for found in leaks.values()]))}"
    remedy = "remove copied documents, or lower splits.min_shared so that they form one group"
    return gate_result("split_leakage", own, limits.leaked_rows_fail, failed, reason, remedy, warned)


def documents_in_two_splits(dataset: Dataset) -> list[str]:
    """Ids of documents whose rows are in more than one split."""
    owner: dict[str, set[str]] = {}
    splits = dataset.table.column("split").to_numpy(zero_copy_only=False)
    for doc in range(len(dataset.doc_ids)):
        found = set(splits[dataset.starts[doc] : dataset.starts[doc + 1]])
        owner.setdefault(dataset.doc_ids[doc], set()).update(found)
    return [doc_id for doc_id, found in owner.items() if len(found) > 1]


def leak(dataset: Dataset, split: str, device: torch.device) -> Leak:
    """What `split`, which has rows, has in common with train."""
    rows, leaked = dataset.rows(split), leaked_rows(dataset, split, device)
    lengths = np.diff(dataset.starts)

    def by_document(found: np.ndarray) -> np.ndarray:
        return np.bincount(dataset.row_doc[found], minlength=len(lengths))

    own = by_document(leaked[~np.isin(dataset.text_codes[leaked], boilerplate(dataset))])
    most = int(own.argmax())
    own_share = (own.sum() - own[most]) / max(len(rows) - lengths[most], 1)
    mostly = np.flatnonzero(by_document(leaked) > lengths / 2)
    names = [dataset.doc_ids[doc] for doc in mostly]
    return Leak(leaked, len(leaked) / len(rows), float(own_share), names, float(lengths[mostly].sum() / len(rows)))


def boilerplate(dataset: Dataset) -> np.ndarray:
    """Codes of the texts that two or more training documents hold: headings, signatures, licences."""
    train = dataset.rows("train")
    pairs = np.unique(np.stack([dataset.text_codes[train], dataset.row_doc[train]], 1), axis=0)
    codes, documents = np.unique(pairs[:, 0], return_counts=True)
    return codes[documents > 1]
