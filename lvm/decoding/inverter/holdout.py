"""Which texts a decoder may be trained on.

A decoder that has seen a text can recite it. The validation and test documents that it will be evaluated on
must therefore be absent from its training. They are recognised by their texts, since the same document has a
different id in another collection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lvm.data.dataset import Dataset
from lvm.data.unseen import normalised_text
from lvm.errors import InputError


@dataclass(frozen=True)
class TrainingTexts:
    """The texts to train on, and what was left out."""

    texts: list[str]

    sources: list[str]
    """Source of each text."""

    dropped_documents: int
    """Training documents with a fifth or more of their texts held out: these are copies of held-out documents."""

    dropped_texts: int
    """Held-out texts in the documents that were kept."""

    held: frozenset[str]
    """Every held-out text, in the form that `normalised_text` gives it: no stretch of a training text may be one either."""


def training_texts(dataset: Dataset, hold_out: Sequence[Dataset]) -> TrainingTexts:
    """Texts of the training documents of `dataset`, without any validation or test text of it or of `hold_out`.

    Raises `InputError` when nothing is left.
    """
    held: set[str] = set()
    for other in (dataset, *hold_out):
        for split in ("val", "test"):
            held.update(map(normalised_text, other.texts(other.rows(split))))
    share = dataset.manifest.splits.min_shared
    everything = dataset.texts(np.arange(dataset.n_rows))
    source = dataset.table.column("source").to_pylist()
    kept: list[str] = []
    sources: list[str] = []
    documents = texts = 0
    for doc in dataset.docs("train"):
        own = everything[dataset.starts[doc] : dataset.starts[doc + 1]]
        free = [text for text in own if normalised_text(text) not in held]
        if len(own) - len(free) >= share * len(own):
            documents += 1
            continue
        texts += len(own) - len(free)
        kept += free
        sources += [source[dataset.starts[doc]]] * len(free)
    if not kept:
        raise InputError(f"dataset {dataset.path} has no training text that is not held out: give more documents")
    return TrainingTexts(kept, sources, documents, texts, frozenset(held))
