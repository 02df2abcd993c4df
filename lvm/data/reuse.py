"""Vectors that exist already: those of equal texts in datasets that the same encoder made.

A corpus grows by a few documents, and only their chunks need encoding. Texts are compared by digests of 16 bytes, and old datasets are
read a batch of rows at a time: their texts and vectors are never in memory together.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lvm.atomic_io import sha256_once
from lvm.config import SplitConfig
from lvm.data.encoders import Encoder
from lvm.data.manifest import Manifest, read_manifest
from lvm.data.vectors import unusable_rows
from lvm.errors import InputError

BATCH_ROWS = 8_192
NEW = -1
"""Number of the dataset of a text that no dataset holds."""


@dataclass(frozen=True)
class KnownVectors:
    """Where the vectors of a table's texts can be read."""

    datasets: list[tuple[Path, Manifest]] = field(default_factory=list)
    """The datasets that were looked at."""

    dataset: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """int32 [n_rows]: for each text, the number of the dataset that holds it, or `NEW`."""

    row: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """int64 [n_rows]: its row there."""

    splits: dict[str, str] = field(default_factory=dict)
    """doc_id -> split, of the table's documents that one of the datasets holds and divided by the same settings."""

    def read(self, start: int, vectors_ND: np.ndarray) -> tuple[np.ndarray, Counter[str]]:
        """Fill in the known vectors of the rows from `start` on, as many as `vectors_ND` has.

        Returns the positions that are left to encode, int64, ascending; and the number of vectors from each dataset, by its digest.
        """
        missing = np.ones(len(vectors_ND), bool)
        taken: Counter[str] = Counter()
        numbers = self.dataset[start : start + len(vectors_ND)]
        for number in np.unique(numbers[numbers != NEW]):
            path, manifest = self.datasets[number]
            at = np.flatnonzero(numbers == number)
            vectors_ND[at] = _read_rows(path, manifest, self.row[start + at])
            usable = np.delete(at, unusable_rows(vectors_ND[at]))
            missing[usable] = False
            taken[manifest.digest] += len(usable)
        return np.flatnonzero(missing), taken


def find_vectors(table: pa.Table, datasets: Iterable[Path], encoder: Encoder, splits: SplitConfig) -> KnownVectors:
    """Look for the texts of `table` in `datasets`, one after the other, until all are found.

    Raises `InputError` as `require_reusable` does.
    """
    digests = _digests(table.column("text"))
    wanted, place = np.unique(digests, return_inverse=True)
    dataset, row = np.full(len(wanted), NEW, np.int32), np.zeros(len(wanted), np.int64)
    first = table.column("chunk_index").to_numpy() == 0
    beginnings = dict(zip(table.column("doc_id").filter(pa.array(first)).to_pylist(), digests[first].tolist(), strict=True))
    found = KnownVectors()
    for path in datasets:
        manifest = require_reusable(path, encoder)
        found.datasets.append((path, manifest))
        same_settings = manifest.splits.identity() == splits.identity()
        for start, batch in _batches(path, manifest):
            texts = _digests(batch.column("text"))
            at = np.minimum(np.searchsorted(wanted, texts), len(wanted) - 1)
            hits = np.flatnonzero((wanted[at] == texts) & (dataset[at] == NEW))
            dataset[at[hits]], row[at[hits]] = len(found.datasets) - 1, start + hits
            if same_settings:
                _note_splits(batch, texts, beginnings, found.splits)
        if np.all(dataset != NEW):
            break
    return KnownVectors(found.datasets, dataset[place], row[place], found.splits)


def require_reusable(path: Path, encoder: Encoder) -> Manifest:
    """The manifest of the dataset at `path`; `InputError` when it is damaged, or its vectors are not those that `encoder` gives."""
    manifest = read_manifest(path)
    manifest.recipe.require_same(encoder.recipe, f"dataset {path} cannot be reused")
    if manifest.encoder_dtype != encoder.dtype:
        raise InputError(
            f"dataset {path} cannot be reused: its encoder's floating-point type is {manifest.encoder_dtype}, this run's is {encoder.dtype}"
        )
    for shard in manifest.shards:
        file = path / shard.file
        if not file.is_file() or sha256_once(file) != shard.sha256:
            raise InputError(f"dataset {path} cannot be reused: {shard.file} is missing or damaged; extract it again, or leave it out")
    return manifest


def reusable_datasets(folder: Path, encoder: Encoder, warn: Callable[[str], None]) -> Iterator[Path]:
    """The datasets below `folder` whose vectors can be reused, the newest first. `warn` is told why another one of this encoder is not."""
    files = sorted(folder.glob("*/manifest.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for path in (file.parent for file in files):
        try:
            if read_manifest(path).recipe.id != encoder.recipe.id:
                continue
            require_reusable(path, encoder)
        except InputError as error:
            warn(str(error))
            continue
        yield path


def _digests(texts: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A digest of each text, bytes [n]. They are compared as fixed-length strings, which NumPy sorts."""
    digests = bytearray()
    for start in range(0, len(texts), BATCH_ROWS):
        for text in texts.slice(start, BATCH_ROWS).to_pylist():
            digests += hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.frombuffer(bytes(digests), "S16")


def _batches(path: Path, manifest: Manifest) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a dataset without vectors: the number of the first one, and the rows."""
    start = 0
    for shard in manifest.shards:
        with pq.ParquetFile(path / shard.file) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=["doc_id", "chunk_index", "split", "text"]):
                yield start, batch
                start += len(batch)


def _note_splits(batch: pa.RecordBatch, digests: np.ndarray, beginnings: dict[str, bytes], splits: dict[str, str]) -> None:
    """Note the split of each document that begins in `batch` as one of the same id in `beginnings` does. What is noted stays."""
    first = np.flatnonzero(batch.column("chunk_index").to_numpy() == 0)
    doc_ids, old_splits = (batch.column(name).take(pa.array(first)).to_pylist() for name in ("doc_id", "split"))
    for doc_id, split, digest in zip(doc_ids, old_splits, digests[first].tolist(), strict=True):
        if beginnings.get(doc_id) == digest:
            splits.setdefault(doc_id, split)


def _read_rows(path: Path, manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """The vectors of these rows of a dataset, float32 [n, dim], a row group at a time."""
    vectors = np.empty((len(rows), manifest.recipe.dim), np.float32)
    start = 0
    for shard in manifest.shards:
        if np.any((rows >= start) & (rows < start + shard.rows)):
            _read_shard_rows(path / shard.file, rows - start, vectors)
        start += shard.rows
    return vectors


def _read_shard_rows(file: Path, rows: np.ndarray, vectors: np.ndarray) -> None:
    """Fill in the vectors of those `rows` that the shard holds."""
    start = 0
    with pq.ParquetFile(file) as shard:
        for group in range(shard.num_row_groups):
            stop = start + shard.metadata.row_group(group).num_rows
            at = np.flatnonzero((rows >= start) & (rows < stop))
            if len(at):
                column = shard.read_row_group(group, columns=["embedding"]).column("embedding").combine_chunks()
                vectors[at] = column.flatten().to_numpy().reshape(stop - start, -1)[rows[at] - start]
            start = stop
