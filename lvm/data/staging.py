"""Chunks on their way into a dataset: cut, but not yet encoded.

The staged file holds them in the order in which the documents were read; `read_staged` brings them into the dataset's order
and divides the documents into splits.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lvm.atomic_io import replacing
from lvm.config import SplitConfig
from lvm.data.corpus import Corpus
from lvm.data.manifest import schema
from lvm.data.sources import Skipped
from lvm.data.splits import assign_splits, duplicate_groups
from lvm.errors import InputError


@dataclass(frozen=True)
class StagedChunks:
    """The chunks of a dataset in their final order, without vectors."""

    table: pa.Table
    """One row a chunk, sorted by (doc_id, chunk_index)."""

    doc_splits: list[str]
    """The split of each document, in the order of their ids."""

    row_splits: list[str]
    """The split of each row."""

    duplicate_groups: int
    """Groups of two or more near-duplicate documents."""

    skipped: list[Skipped]
    """Documents without two chunks."""


def stage_chunks(corpus: Corpus, file: Path) -> None:
    """Write the chunks of `corpus` to an Arrow file. It appears when it is complete."""
    columns = pa.schema([column for column in schema(1) if column.name not in ("split", "embedding")])
    with replacing(file) as temporary, pa.ipc.new_file(temporary, columns) as writer:
        for document in corpus.chunked():
            n = len(document.chunks)
            if n == 0:
                continue
            texts, lengths = [chunk.text for chunk in document.chunks], [chunk.n_tokens for chunk in document.chunks]
            values = [[document.doc_id] * n, range(n), [document.source] * n, texts, lengths]
            arrays = [pa.array(value, column.type) for value, column in zip(values, columns, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=columns))


def read_staged(file: Path, doc_ids: Collection[str], config: SplitConfig) -> StagedChunks:
    """The chunks of `file` in the dataset's order, divided by `config`.

    `doc_ids` are the documents that were to be cut; those without two chunks are listed as skipped.
    Raises `InputError` when no document has two.
    """
    with pa.memory_map(str(file)) as mapped, pa.ipc.open_file(mapped) as reader:
        table = reader.read_all()
    spans = _row_spans(table)
    usable = sorted(doc_id for doc_id, (start, stop) in spans.items() if stop - start > 1)
    skipped = [
        Skipped(doc_id, "one chunk: nothing to predict" if doc_id in spans else "no text") for doc_id in sorted(set(doc_ids) - set(usable))
    ]
    if not usable:
        raise InputError(f"no document has two chunks or more ({len(skipped)} skipped)")
    lengths = [spans[doc_id][1] - spans[doc_id][0] for doc_id in usable]
    table = table.take(pa.array(np.concatenate([np.arange(*spans[doc_id]) for doc_id in usable])))
    groups = duplicate_groups(np.split(_text_hashes(table), np.cumsum(lengths)[:-1]), config.min_shared)
    doc_splits = assign_splits(usable, groups, config)
    row_splits = [split for split, length in zip(doc_splits, lengths, strict=True) for _ in range(length)]
    return StagedChunks(table, doc_splits, row_splits, int((np.bincount(groups) > 1).sum()), skipped)


def _row_spans(table: pa.Table) -> dict[str, tuple[int, int]]:
    """doc_id -> first row of the document and the row after its last."""
    ids = table.column("doc_id").combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    return dict(zip(ids.dictionary.to_pylist(), zip(starts, [*starts[1:], len(codes)], strict=True), strict=True))


def _text_hashes(table: pa.Table) -> np.ndarray:
    """A hash of each row's text, uint64."""
    texts = table.column("text").to_pylist()
    return np.array([int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in texts], np.uint64)
