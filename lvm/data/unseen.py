"""Which documents a model has never seen: for every night, and for whoever offers the same folder twice.

A number on documents that a model was trained on is a lie, so documents are recognised by their
texts, not by their ids: the same document has another id in another collection, and a new text may have an old one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lvm.data.chunker import Chunker
from lvm.data.dataset import Dataset
from lvm.data.extract import scan_sources
from lvm.data.sources import Document, iter_source
from lvm.data.windows import near_copies


@dataclass(frozen=True)
class Fresh:
    """What of the offered documents is new."""

    doc_ids: list[str]
    """Documents of which less than `splits.min_shared` of the texts stands in the record."""

    known: list[str]
    """The others."""


def fresh_documents(sources: Sequence[str], record: Dataset, chunker: Chunker) -> Fresh:
    """Tell the documents of `sources` that `record` holds from those that it does not; its chunker cuts them as it was cut.

    Test documents of the record count as known: what is compared with them must not be them. Raises
    what `scan_sources` raises.
    """
    wanted = set(scan_sources(sources).kept)
    held = set(map(plain, record.texts(np.arange(record.n_rows))))
    fresh: list[str] = []
    known: list[str] = []
    for item in (item for source in sources for item in iter_source(source)):
        if not isinstance(item, Document) or item.doc_id not in wanted:
            continue
        wanted.remove(item.doc_id)
        texts = {plain(chunk.text) for chunk in chunker(item.text)}
        is_known = bool(texts) and len(texts & held) >= record.manifest.splits.min_shared * len(texts)
        (known if is_known else fresh).append(item.doc_id)
    return Fresh(sorted(fresh), sorted(known))


def rotating_sample(doc_ids: Sequence[str], count: int, night: str) -> list[str]:
    """`count` of the documents, or all there are: the same for the same night, others for another."""
    return sorted(sorted(doc_ids, key=lambda doc_id: hashlib.sha256(f"{night} {doc_id}".encode()).digest())[:count])


def copied_rows(dataset: Dataset, record: Dataset, device: torch.device) -> np.ndarray:
    """Rows of `dataset` whose text, or nearly whose vector, stands in the record's train: not to be scored, int64."""
    train = set(record.texts(record.rows("train")))
    same = np.array([text in train for text in dataset.texts(np.arange(dataset.n_rows))])
    return np.flatnonzero(same | near_copies(dataset.vectors, record, device))


def plain(text: str) -> str:
    """`text` without what two copies may differ in: case and white space."""
    return " ".join(text.lower().split())
