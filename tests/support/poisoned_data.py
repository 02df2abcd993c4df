"""Copies of a dataset with one fault each, for the gates to find."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sentencex

from lvm.data.chunker import Chunker, paragraphs
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.data.sources import Document, iter_source
from lvm.gates.result import GateResult

Poison = Callable[..., Dataset]


def failed(result: GateResult) -> str:
    """Reason and remedy of a gate that has failed, which has both."""
    assert (result.passed, result.severity) == (False, "fail"), result
    assert result.reason and result.remedy
    return result.sentence


def changed(dataset: Dataset, folder: Path, vectors: np.ndarray | None = None, columns: dict[str, Sequence[Any]] | None = None) -> Dataset:
    """The dataset with other vectors or columns, and a folder of its own for what is derived."""
    table = dataset.table
    for name, values in (columns or {}).items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return replace(dataset, path=folder, table=table, vectors=dataset.vectors if vectors is None else vectors)


def column(dataset: Dataset, name: str) -> list[Any]:
    return dataset.table.column(name).to_pylist()


def reordered(dataset: Dataset, folder: Path, rows: np.ndarray) -> Dataset:
    """The dataset with its rows, texts and vectors alike, in another order within their documents."""
    table = dataset.table.take(pa.array(rows))
    table = table.set_column(1, table.schema.field(1), dataset.table.column("chunk_index"))
    return replace(dataset, path=folder, table=table, vectors=dataset.vectors[rows])


def sentence_numbers(dataset: Dataset, corpus: Path, encoder: Encoder) -> np.ndarray:
    """Which sentence of its document each row is a piece of, told from the text that was extracted: int [n_rows]."""
    chunker = Chunker(dataset.manifest.chunker, encoder.tokenizer)
    texts = {item.doc_id: item.text for item in iter_source(str(corpus)) if isinstance(item, Document)}
    numbers: list[int] = []
    for doc_id in dataset.doc_ids:
        sentences = [s for paragraph in paragraphs(texts[doc_id]) for s in sentencex.segment("en", paragraph) if s.strip()]
        numbers += [number for number, sentence in enumerate(sentences) for _ in chunker(sentence)]
    return np.array(numbers)


def sentences_shuffled(dataset: Dataset, folder: Path, numbers: np.ndarray, docs: Sequence[int], seed: int = 0) -> Dataset:
    """The documents `docs` with their sentences in random order. Each stays whole, so that the pieces of a long one are neighbours."""
    rng, rows = np.random.default_rng(seed), np.arange(dataset.n_rows)
    for doc in docs:
        own = np.arange(dataset.starts[doc], dataset.starts[doc + 1])
        pieces = np.split(own, np.flatnonzero(np.diff(numbers[own])) + 1)
        rows[own] = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
    return reordered(dataset, folder, rows)


def doubled(dataset: Dataset, folder: Path, docs: Sequence[int], splits: Sequence[str]) -> Dataset:
    """A copy of each of `docs` at the end, under another name and in the split that is given for it."""
    rows = np.concatenate([np.arange(dataset.n_rows), *(np.arange(dataset.starts[d], dataset.starts[d + 1]) for d in docs)])
    names = [*dataset.doc_ids, *(f"{dataset.doc_ids[d]}-copy" for d in docs)]
    lengths = np.diff(dataset.starts)[[*range(len(dataset.doc_ids)), *docs]]
    doc_splits = np.array([*dataset.doc_splits, *splits], object)
    columns = {"doc_id": np.repeat(names, lengths), "split": np.repeat(doc_splits, lengths)}
    starts = np.concatenate([[0], np.cumsum(lengths)])
    larger = replace(dataset, table=dataset.table.take(pa.array(rows)), doc_ids=names, starts=starts, doc_splits=doc_splits)
    return changed(larger, folder, dataset.vectors[rows], {name: values.tolist() for name, values in columns.items()})


def within_documents(dataset: Dataset, order: Callable[[int], np.ndarray], values: np.ndarray | None = None) -> np.ndarray:
    """Vectors, or other values of all rows, with the rows of every document of n chunks in `order(n)`."""
    spans = zip(dataset.starts[:-1], dataset.starts[1:], strict=True)
    return (dataset.vectors if values is None else values)[np.concatenate([start + order(stop - start) for start, stop in spans])]


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


def unread(dataset: Dataset, encoder: Encoder, folder: Path, rows: np.ndarray) -> Dataset:
    """The dataset with other texts in `rows`, all of one unknown token each, and the vectors that the encoder gives them."""
    texts, lengths, vectors = column(dataset, "text"), column(dataset, "n_tokens"), np.array(dataset.vectors)
    letters = [chr(code) for code in range(0x0E01, 0x0E2F)]  # Thai consonants; the tokenizer knows few of them, and not this word's first
    for number, row in enumerate(rows):
        texts[row], lengths[row] = "ฬ" + "".join(letters[number // 46**place % 46] for place in range(3)), 1
    vectors[rows] = encoder.encode([texts[row] for row in rows])
    return changed(dataset, folder, vectors, {"text": texts, "n_tokens": lengths})


def mixed(dataset: Dataset, splits: Sequence[str]) -> np.ndarray:
    """Vectors in which the rows of the splits were permuted across their documents."""
    vectors = np.array(dataset.vectors)
    rows = np.concatenate([dataset.rows(split) for split in splits])
    vectors[rows] = vectors[np.random.default_rng(1).permutation(rows)]
    return vectors
