"""Corpora drawn from the pool, and their datasets: what the gates of the data are given in the study."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from lvm.config import SplitConfig
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.splits import assign_splits, duplicate_groups

KINDS = (2, 8)
"""A corpus mixes at least and at most so many kinds of text; more where these have too few documents."""


@dataclass(frozen=True)
class Document:
    """A document of a corpus as rows of the pool: where the text of each chunk comes from, and where its vector does."""

    name: str
    kind: str
    text: np.ndarray
    vector: np.ndarray
    split: str = ""
    """Given by a poison; otherwise the product divides the documents."""


@dataclass(frozen=True)
class Pool:
    """All embedded documents, and the sentences and paragraphs that their chunks are pieces of."""

    data: Dataset
    sentence: np.ndarray
    """int32 [n_rows]: which sentence of its document a chunk is a piece of."""

    paragraph: np.ndarray
    """int32 [n_rows]: which paragraph of its document."""

    kinds: np.ndarray
    """object [n_docs]: the kind of text of each document."""

    def half(self, which: int) -> np.ndarray:
        """Numbers of every second document of each kind: thresholds are chosen on half 0, and reported on half 1."""
        found: list[int] = []
        for kind in np.unique(self.kinds):
            found += np.flatnonzero(self.kinds == kind)[which::2].tolist()
        return np.array(sorted(found))


def open_pool(work: Path) -> Pool:
    """What `bench.gates.pool` has left in `work`."""
    data, units = open_dataset(work / "pool"), np.load(work / "sentences.npz")
    sources = data.table.column("source").to_numpy(zero_copy_only=False)
    return Pool(data, units["sentence"], units["paragraph"], sources[data.starts[:-1]])


def draw(pool: Pool, docs: np.ndarray, size: int, rng: np.random.Generator) -> list[Document]:
    """`size` documents, or all there are, of a few kinds at random in random shares: an honest corpus.

    The names carry a number of their own, since the splits are made from names: a document is in another split each time.
    """
    kinds = rng.permutation(np.unique(pool.kinds[docs]))
    wanted = int(rng.integers(KINDS[0], KINDS[1] + 1))
    while wanted < len(kinds) and np.isin(pool.kinds[docs], kinds[:wanted]).sum() < size:
        wanted += 1
    weight = dict(zip(kinds[:wanted], rng.dirichlet(np.ones(wanted)), strict=True))
    chosen = docs[np.isin(pool.kinds[docs], kinds[:wanted])]
    # Weighted sampling without replacement: Efraimidis & Spirakis (2006).
    order = np.argsort(rng.exponential(size=len(chosen)) / np.array([weight[pool.kinds[d]] + 1e-9 for d in chosen]))
    salt = int(rng.integers(2**60))
    found = []
    for doc in np.sort(chosen[order[:size]]):
        rows = np.arange(pool.data.starts[doc], pool.data.starts[doc + 1])
        found.append(Document(f"{salt}/{pool.data.doc_ids[doc]}", pool.kinds[doc], rows, rows))
    return found


def divided(pool: Pool, documents: Sequence[Document]) -> list[Document]:
    """The documents with the splits that the product's own extraction gives them."""
    groups = duplicate_groups([pool.data.text_codes[d.text].astype(np.uint64) for d in documents], SplitConfig().min_shared)
    splits = assign_splits([d.name for d in documents], groups, SplitConfig())
    return [replace(d, split=d.split or split) for d, split in zip(documents, splits, strict=True)]


def as_dataset(pool: Pool, documents: Sequence[Document], folder: Path, vectors: np.ndarray | None = None) -> Dataset:
    """The dataset of a corpus whose documents have splits, with `folder` for what is derived; `vectors` instead of the pool's."""
    text = np.concatenate([d.text for d in documents])
    lengths = [len(d.text) for d in documents]
    splits = np.array([d.split for d in documents], object)
    table = pool.data.table.take(pa.array(text))
    columns = {
        "doc_id": np.repeat([d.name for d in documents], lengths),
        "source": np.repeat([d.kind for d in documents], lengths),
        "split": np.repeat(splits, lengths),
        "chunk_index": np.concatenate([np.arange(n) for n in lengths]),
    }
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values.tolist(), field.type))
    rows = np.concatenate([d.vector for d in documents])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    names = [d.name for d in documents]
    return Dataset(folder, pool.data.manifest, table, (pool.data.vectors if vectors is None else vectors)[rows], names, starts, splits)
