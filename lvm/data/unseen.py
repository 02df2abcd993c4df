"""Which of the documents that are offered a model has never seen.

A score on documents that a model was trained on says nothing. Documents are recognised by their texts, not by their ids: the
same document has another id in another collection, and a new text may come under an old id.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lvm.data.corpus import Corpus
from lvm.data.dataset import Dataset
from lvm.data.windows import near_copies


@dataclass(frozen=True)
class OfferedDocuments:
    """Documents that are offered for evaluation, compared with a dataset that a model was trained on."""

    unseen: list[str]
    """Ids of those that share less than `splits.min_shared` of their chunk texts with the dataset, sorted."""

    known: list[str]
    """Ids of the others, sorted."""


def compare_with_record(corpus: Corpus, record: Dataset) -> OfferedDocuments:
    """Divide the documents of `corpus` into those that `record` contains and those that it does not.

    Test documents of the record count as known too: unseen documents are compared with them, so they must not be them.
    """
    recorded = set(map(normalised_text, record.texts(np.arange(record.n_rows))))
    unseen: list[str] = []
    known: list[str] = []
    for document in corpus.chunked():
        texts = {normalised_text(chunk.text) for chunk in document.chunks}
        is_known = bool(texts) and len(texts & recorded) >= record.manifest.splits.min_shared * len(texts)
        (known if is_known else unseen).append(document.doc_id)
    return OfferedDocuments(sorted(unseen), sorted(known))


def rotating_sample(doc_ids: Sequence[str], count: int, night: str) -> list[str]:
    """`count` of the documents, or all there are, sorted: the same ones for the same night, others for another night."""
    return sorted(sorted(doc_ids, key=lambda doc_id: hashlib.sha256(f"{night} {doc_id}".encode()).digest())[:count])


def copied_rows(dataset: Dataset, record: Dataset, device: torch.device) -> np.ndarray:
    """Rows of `dataset` that must not be scored, int64: the record's training chunks hold their text, or nearly their vector."""
    train = set(record.texts(record.rows("train")))
    same = np.array([text in train for text in dataset.texts(np.arange(dataset.n_rows))])
    return np.flatnonzero(same | near_copies(dataset.vectors, record, device))


def normalised_text(text: str) -> str:
    """`text` for comparison: without differences in case and white space."""
    return " ".join(text.lower().split())
