"""Copies of a dataset with one fault each, for the gates to find."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lvm.data.dataset import Dataset


def changed(dataset: Dataset, folder: Path, vectors: np.ndarray | None = None, columns: dict[str, Sequence[Any]] | None = None) -> Dataset:
    """The dataset with other vectors or columns, and a folder of its own for what is derived."""
    table = dataset.table
    for name, values in (columns or {}).items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return replace(dataset, path=folder, table=table, vectors=dataset.vectors if vectors is None else vectors)


def column(dataset: Dataset, name: str) -> list[Any]:
    return dataset.table.column(name).to_pylist()


def within_documents(dataset: Dataset, order: Callable[[int], np.ndarray]) -> np.ndarray:
    """Vectors with the rows of every document of n chunks in `order(n)`."""
    spans = zip(dataset.starts[:-1], dataset.starts[1:], strict=True)
    return dataset.vectors[np.concatenate([start + order(stop - start) for start, stop in spans])]


def boundaries_lost(dataset: Dataset, folder: Path) -> Dataset:
    """Every other document runs on into the next of its split: windows would cross from one into the other."""
    lost = [d for d in range(1, len(dataset.doc_ids), 2) if dataset.doc_splits[d] == dataset.doc_splits[d - 1]]
    kept = np.delete(np.arange(len(dataset.doc_ids)), lost)
    starts, doc_ids = np.delete(dataset.starts, lost), [dataset.doc_ids[d] for d in kept]
    return replace(dataset, path=folder, starts=starts, doc_ids=doc_ids, doc_splits=dataset.doc_splits[kept])


def copied(dataset: Dataset, split: str, share: float, what: str) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Vectors and texts in which so many rows of `split` come from train: (vectors, texts, the rows)."""
    rng = np.random.default_rng(5)
    rows = dataset.rows(split)
    into = np.sort(rng.choice(rows, int(share * len(rows)), replace=False))
    source = rng.choice(dataset.rows("train"), len(into), replace=False)
    vectors, texts = np.array(dataset.vectors), column(dataset, "text")
    if what in ("vectors", "both"):
        vectors[into] = vectors[source]
    if what in ("texts", "both"):
        for row, train_row in zip(into, source, strict=True):
            texts[row] = texts[train_row]
    return vectors, texts, into


def stored_twice(dataset: Dataset, folder: Path, renumbered: bool) -> Dataset:
    """Every chunk after itself, under its own number or the next."""
    twice = np.repeat(np.arange(dataset.n_rows), 2)
    starts = 2 * dataset.starts
    table = dataset.table.take(pa.array(twice))
    if renumbered:
        index = np.arange(len(twice)) - np.repeat(starts[:-1], np.diff(starts))
        table = table.set_column(1, table.schema.field(1), pa.array(index, pa.int32()))
    return replace(dataset, path=folder, table=table, vectors=dataset.vectors[twice], starts=starts)


def mixed(dataset: Dataset, splits: Sequence[str]) -> np.ndarray:
    """Vectors in which the rows of the splits were permuted across their documents."""
    vectors = np.array(dataset.vectors)
    rows = np.concatenate([dataset.rows(split) for split in splits])
    vectors[rows] = vectors[np.random.default_rng(1).permutation(rows)]
    return vectors
