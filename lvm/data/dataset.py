"""The reader of datasets, which every stage uses.

Each chunk is stored once, sorted by (doc_id, chunk_index). A window is a range of row numbers, never a copy of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lvm.atomic_io import sha256_once
from lvm.data.derived import derived_file, derived_prefix, is_intact
from lvm.data.manifest import SPLITS, Manifest, Shard, footer, read_manifest
from lvm.data.vectors import unusable_rows, vector_digests
from lvm.errors import InputError

# Datasets that a process keeps open: a flow's own, and those that it is compared with.
KEPT_OPEN = 4

NO_TEXTS = "holds vectors without texts, which are needed here: import it again from a table with a column 'text'"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in memory: its table without vectors, and its vectors mapped from a file.

    Everything is indexed by row number. The rows of document d are `starts[d]` to `starts[d + 1]`.
    """

    path: Path
    manifest: Manifest

    table: pa.Table
    """All columns but `embedding`, one row a chunk."""

    vectors: np.ndarray
    """float32 [n_rows, dim], memory-mapped, read-only."""

    doc_ids: list[str]
    """Ids of the documents, in row order."""

    starts: np.ndarray
    """int64 [n_docs + 1]: first row of each document, and the number of rows."""

    doc_splits: np.ndarray
    """object [n_docs]: 'train', 'val' or 'test'."""

    reverse: bool = False
    """Whether rows run from the end of the last document to the start of the first. The context of a window then holds later chunks."""

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self.manifest.recipe.dim

    @property
    def n_rows(self) -> int:
        """Number of chunks."""
        return len(self.vectors)

    @cached_property
    def row_doc(self) -> np.ndarray:
        """Document number of each row, int64 [n_rows]."""
        return np.repeat(np.arange(len(self.doc_ids)), np.diff(self.starts))

    @cached_property
    def chunk_index(self) -> np.ndarray:
        """Stored position of each row in its document, int32 [n_rows]."""
        return self.table.column("chunk_index").to_numpy()

    @cached_property
    def has_texts(self) -> bool:
        """Whether the texts of the chunks are stored. Vectors can be imported without them."""
        return self.table.column("text").null_count == 0

    @cached_property
    def text_codes(self) -> np.ndarray:
        """An integer for each row, the same for two rows exactly when their texts are equal, int32 [n_rows].

        Without texts, equal vectors stand for equal texts.
        """
        if not self.has_texts:
            return np.unique(vector_digests(self.vectors)[:, 0], return_inverse=True)[1].astype(np.int32)
        return self.table.column("text").combine_chunks().dictionary_encode().indices.to_numpy()

    def directed(self, reverse: bool) -> "Dataset":
        """The same documents, read forward or, with `reverse`, from their end to their start.

        The vectors are not copied, chunks keep their `chunk_index`, and files derived from the two directions have different names.
        """
        return self if reverse == self.reverse else self._reversed

    @cached_property
    def _reversed(self) -> "Dataset":
        """All rows in the opposite order."""
        return replace(
            self,
            table=self.table.take(pa.array(np.arange(self.n_rows)[::-1])),
            vectors=self.vectors[::-1],
            doc_ids=self.doc_ids[::-1],
            starts=self.n_rows - self.starts[::-1],
            doc_splits=self.doc_splits[::-1],
            reverse=not self.reverse,
        )

    def docs(self, split: str) -> np.ndarray:
        """Numbers of the documents of a split ('all' for every one), ascending."""
        if split == "all":
            return np.arange(len(self.doc_ids))
        return np.flatnonzero(self.doc_splits == split)

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, ascending."""
        wanted = np.zeros(len(self.doc_ids), bool)
        wanted[self.docs(split)] = True
        return np.flatnonzero(wanted[self.row_doc])

    def require_finite(self) -> None:
        """Raise `InputError` naming the documents when a vector is zero or not finite.

        Training and validation call this. `open_dataset` does not: the gate `duplicates` has to report such vectors.
        """
        bad = unusable_rows(self.vectors)
        if len(bad):
            names = sorted({self.doc_ids[self.row_doc[row]] for row in bad})[:5]
            raise InputError(f"dataset {self.path}: {len(bad)} vectors are zero or not finite, in {names}: extract again")

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Texts of the given rows; `InputError` when none were imported with the vectors."""
        if not self.has_texts:
            raise InputError(f"dataset {self.path} {NO_TEXTS}")
        return self.table.column("text").take(pa.array(rows, pa.int64())).to_pylist()

    def derived(self, name: str) -> Path:
        """Path of a file that is computed from this content in this direction, kept beside the shards. Read it by `derived_file`."""
        direction = "reverse-" if self.reverse else ""
        return self.path / "derived" / f"{derived_prefix(self.manifest.digest)}{direction}{name}"


def open_dataset(path: Path) -> Dataset:
    """Open and verify a dataset.

    Checks the manifest, every shard's SHA-256 and footer, and the row order. Raises `InputError` naming the file and the remedy.
    The vectors are copied once into a memory-mapped file whose name contains the dataset's digest. Its own digest is verified too.

    A process verifies and reads a dataset once. Later calls return the same object, unless a file has changed since.
    """
    manifest = read_manifest(path)
    with _opening:  # tasks of a flow are threads: the second waits instead of reading the same files
        for shard in manifest.shards:
            _require_intact(path / shard.file, shard)
        known = _opened.pop((path, path.resolve()), None)
        if known is not None and known.manifest == manifest and is_intact(_vectors_file(path, manifest)):
            dataset = known
        else:
            dataset = _read_dataset(path, manifest)
        _opened[path, path.resolve()] = dataset
        while len(_opened) > KEPT_OPEN:
            del _opened[next(iter(_opened))]
    return dataset


# Open datasets by path as given and as resolved, the least recently used first.
_opened: dict[tuple[Path, Path], Dataset] = {}
_opening = RLock()


def _require_intact(file: Path, shard: Shard) -> None:
    """Raise `InputError` when a shard is not what the manifest says."""
    if not file.is_file():
        raise InputError(f"{file} is missing: run 'lvm extract' again")
    if sha256_once(file) != shard.sha256:
        raise InputError(f"{file} is truncated or altered (SHA-256 differs from the manifest): extract again")


def _read_dataset(path: Path, manifest: Manifest) -> Dataset:
    """Read a dataset whose shards are intact; `InputError` when they contradict the manifest."""
    files = [path / shard.file for shard in manifest.shards]
    for file in files:
        _require_footer(file, manifest)
    columns = ["doc_id", "chunk_index", "source", "split", "text", "n_tokens"]
    table = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    codes = table.column("doc_id").combine_chunks().dictionary_encode()
    order = codes.indices.to_numpy()
    if np.any(np.diff(order) < 0):
        raise InputError(f"dataset {path}: rows of one document do not stand together; extract again")
    starts = np.concatenate([[0], np.cumsum(np.bincount(order))])
    splits = table.column("split").take(pa.array(starts[:-1])).to_numpy(zero_copy_only=False)
    unknown = set(pc.unique(table.column("split")).to_pylist()) - set(SPLITS)
    if unknown:
        raise InputError(f"dataset {path}: column 'split' holds {sorted(map(str, unknown))}; expected {SPLITS}")
    _require_counts(path, manifest, table, splits)
    dim = manifest.recipe.dim
    flat = derived_file(_vectors_file(path, manifest), partial(_write_vectors, files, dim))
    vectors = np.memmap(flat, np.float32, "r", shape=(len(table), dim))
    return Dataset(path, manifest, table, vectors, codes.dictionary.to_pylist(), starts, splits)


def _require_footer(file: Path, manifest: Manifest) -> None:
    """Raise `InputError` when a shard's own metadata is not that of the manifest."""
    found = pq.read_metadata(file).metadata or {}
    expected = footer(manifest.key, manifest.source_digest, manifest.chunker, manifest.recipe)
    wrong = [name for name, value in expected.items() if found.get(name.encode()) != value.encode()]
    if wrong:
        raise InputError(f"{file}: footer and manifest.json disagree on {', '.join(wrong)}; extract again into a new folder")


def _require_counts(path: Path, manifest: Manifest, table: pa.Table, doc_splits: np.ndarray) -> None:
    """Raise `InputError` when the manifest counts other rows than the shards hold."""
    row_splits = table.column("split").to_numpy()
    found: dict[str, Any] = {
        "documents": {split: int(np.sum(doc_splits == split)) for split in SPLITS},
        "chunks": {split: int(np.sum(row_splits == split)) for split in SPLITS},
        "sources": sorted(pc.unique(table.column("source")).to_pylist()),
        "shards": [pq.read_metadata(path / shard.file).num_rows for shard in manifest.shards],
    }
    stated = {name: getattr(manifest, name) for name in found} | {"shards": [shard.rows for shard in manifest.shards]}
    wrong = [name for name, value in found.items() if value != stated[name]]
    if wrong:
        raise InputError(f"dataset {path}: manifest.json and the shards disagree on {', '.join(wrong)}; extract again into a new folder")


def _vectors_file(path: Path, manifest: Manifest) -> Path:
    """The flat copy of the vectors that is mapped into memory."""
    return path / "derived" / f"{derived_prefix(manifest.digest)}vectors.f32"


def _write_vectors(files: list[Path], dim: int, flat: Path) -> None:
    """Copy the vector columns of the shards into one flat file, a row group at a time."""
    with flat.open("wb") as out:
        for file in files:
            shard = pq.ParquetFile(file)
            if shard.schema_arrow.field("embedding").type != pa.list_(pa.float32(), dim):
                raise InputError(f"{file}: column 'embedding' is not of dimension {dim}; extract again")
            for batch in shard.iter_batches(columns=["embedding"]):
                out.write(batch.column(0).flatten().to_numpy().tobytes())
