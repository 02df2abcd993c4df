"""The dataset of record: Parquet shards with a manifest, and the reader that every stage uses.

Each chunk is stored once, sorted by (doc_id, chunk_index); a window is index arithmetic over its
rows and never a copy.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from lvm.atomic_io import digest_json, replacing, sha256_file
from lvm.config import ChunkerConfig, Config, SplitConfig, parse
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError

SCHEMA_VERSION = 1


# Raised when what is computed from a dataset (baselines, leaked rows) changes its meaning.
DERIVED_VERSION = 1


SPLITS = ("train", "val", "test")


class Shard(Config):
    """One Parquet file of a dataset."""

    file: str
    """Its name."""

    rows: int
    """Its chunks."""

    sha256: str
    """Of its bytes."""


class Manifest(Config):
    """What a dataset is; written last, so that its presence means that everything else is there."""

    schema_version: int
    """Version of the column layout."""

    key: str
    """Identity of the content: source digest, chunker, splits, encoder recipe and schema version."""

    source_digest: str
    """SHA-256 over the documents' ids and texts."""

    sources: list[str]
    """Names of the collections, without folders."""

    chunker: ChunkerConfig
    """How the text was cut."""

    splits: SplitConfig
    """How the documents were divided."""

    recipe: EncoderRecipe
    """How the chunks were encoded."""

    encoder_dtype: str
    """Precision of the encoder; provenance, not identity."""

    documents: dict[str, int]
    """Documents in each split."""

    chunks: dict[str, int]
    """Chunks in each split."""

    duplicate_groups: int
    """Groups of two or more near-duplicate documents, kept on one side of the split."""

    skipped: list[dict[str, str]]
    """Documents that were left out: doc_id and reason."""

    ignored_fields: list[str]
    """Fields of the input that nothing read."""

    shards: list[Shard] = Field(min_length=1)
    """The files, in row order."""

    code_version: str
    """Version of lvm that wrote this."""

    @property
    def digest(self) -> str:
        """SHA-256 of what later stages depend on: the key and the bytes of the shards."""
        return digest_json([self.key, [shard.sha256 for shard in self.shards]])


def schema(dim: int, metadata: dict[str, str] | None = None) -> pa.Schema:
    """Columns of a shard, for vectors of dimension `dim`."""
    fields = [
        ("doc_id", pa.string()),
        ("chunk_index", pa.int32()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("text", pa.string()),
        ("n_tokens", pa.int16()),
        ("embedding", pa.list_(pa.float32(), dim)),
    ]
    return pa.schema(fields, metadata=metadata)


def footer(key: str, source_digest: str, chunker: ChunkerConfig, recipe: EncoderRecipe) -> dict[str, str]:
    """What every shard says about itself in its Parquet metadata, so that it is known without the manifest too."""
    return {
        "lvm.schema_version": str(SCHEMA_VERSION),
        "lvm.key": key,
        "lvm.source_digest": source_digest,
        "lvm.chunker": chunker.model_dump_json(),
        "lvm.recipe": recipe.model_dump_json(exclude={"name"}),
    }


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory: its table without vectors, its vectors mapped from a file.

    Row numbers index everything; the rows of document d are `starts[d]` to `starts[d + 1]`.
    """

    path: Path
    manifest: Manifest
    table: pa.Table
    vectors: np.ndarray
    """float32 [n_rows, dim], memory-mapped, read-only."""

    doc_ids: list[str]
    starts: np.ndarray
    """int64 [n_docs + 1]."""

    doc_splits: np.ndarray
    """object [n_docs]: 'train', 'val' or 'test'."""

    reverse: bool = False
    """Whether rows run from the end of the last document to the beginning of the first: a window's context are then later chunks."""

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
    def text_codes(self) -> np.ndarray:
        """An integer per row, equal exactly for equal texts, int32 [n_rows]."""
        return self.table.column("text").combine_chunks().dictionary_encode().indices.to_numpy()

    def directed(self, reverse: bool) -> "Dataset":
        """The same documents to be read forward or, with `reverse`, from their end to their beginning.

        A view, not a copy of the vectors. Whatever works on rows works on it as it is; chunks keep their `chunk_index`,
        and what is derived has names of its own.
        """
        return self if reverse == self.reverse else self._turned

    @cached_property
    def _turned(self) -> "Dataset":
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

        Opening does not look, so that the gate `duplicates` can; training and validation do.
        """
        bad: list[int] = []
        for start in range(0, self.n_rows, 8_192):
            norms = np.linalg.norm(self.vectors[start : start + 8_192], axis=1)
            bad += (start + np.flatnonzero(~np.isfinite(norms) | (norms == 0))).tolist()
        if bad:
            names = sorted({self.doc_ids[self.row_doc[row]] for row in bad})[:5]
            raise InputError(f"dataset {self.path}: {len(bad)} vectors are zero or not finite, in {names}: extract again")

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Texts of the given rows."""
        return self.table.column("text").take(pa.array(rows, pa.int64())).to_pylist()

    def derived(self, name: str) -> Path:
        """Path of a file computed from this very content in this very direction, kept beside it."""
        direction = "reverse-" if self.reverse else ""
        return self.path / "derived" / f"{self.manifest.digest[:12]}-v{DERIVED_VERSION}-{direction}{name}"


def read_manifest(path: Path) -> Manifest:
    """The manifest of the dataset at `path`; `InputError` when there is none or it is not ours."""
    file = path / "manifest.json"
    if not path.is_dir():
        raise InputError(f"dataset {path} is not a folder: make one with 'lvm extract --source ... --out {path}'")
    if not file.is_file():
        raise InputError(f"dataset {path} has no manifest.json: extraction did not finish; run 'lvm extract' again")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: extract again into a new folder") from error
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{file}: field 'schema_version' must be {SCHEMA_VERSION}; extract again into a new folder")
    return parse(Manifest, values)


def open_dataset(path: Path) -> Dataset:
    """Open and verify a dataset.

    Checks the manifest, every shard's SHA-256 and footer, and the row order. Raises `InputError`
    naming the file and the remedy. The vectors are copied once into a memory-mapped file keyed by content.
    """
    manifest = read_manifest(path)
    for shard in manifest.shards:
        file = path / shard.file
        if not file.is_file():
            raise InputError(f"{file} is missing: run 'lvm extract' again")
        if sha256_file(file) != shard.sha256:
            raise InputError(f"{file} is truncated or altered (SHA-256 differs from the manifest): extract again")
        written = pq.read_metadata(file).metadata or {}
        stated = footer(manifest.key, manifest.source_digest, manifest.chunker, manifest.recipe)
        wrong = [name for name, value in stated.items() if written.get(name.encode()) != value.encode()]
        if wrong:
            raise InputError(f"{file}: footer and manifest.json disagree on {', '.join(wrong)}; extract again into a new folder")
    files = [path / shard.file for shard in manifest.shards]
    columns = ["doc_id", "chunk_index", "source", "split", "text", "n_tokens"]
    table = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    codes = table.column("doc_id").combine_chunks().dictionary_encode()
    order = codes.indices.to_numpy()
    if np.any(np.diff(order) < 0):
        raise InputError(f"dataset {path}: rows of one document do not stand together; extract again")
    counts = np.bincount(order)
    starts = np.concatenate([[0], np.cumsum(counts)])
    splits = table.column("split").take(pa.array(starts[:-1])).to_numpy(zero_copy_only=False)
    unknown = set(pc.unique(table.column("split")).to_pylist()) - set(SPLITS)
    if unknown:
        raise InputError(f"dataset {path}: column 'split' holds {sorted(map(str, unknown))}; expected {SPLITS}")
    cache = path / "derived" / f"{manifest.digest[:12]}-v{DERIVED_VERSION}-vectors.f32"
    shape = (len(table), manifest.recipe.dim)
    if not cache.is_file() or cache.stat().st_size != shape[0] * shape[1] * 4:
        _write_vectors(files, cache, manifest.recipe.dim)
    vectors = np.memmap(cache, np.float32, "r", shape=shape)
    return Dataset(path, manifest, table, vectors, codes.dictionary.to_pylist(), starts, splits)


def _write_vectors(files: list[Path], cache: Path, dim: int) -> None:
    """Copy the vector columns of the shards into one flat file, a row group at a time."""
    with replacing(cache) as temporary, temporary.open("wb") as out:
        for file in files:
            shard = pq.ParquetFile(file)
            if shard.schema_arrow.field("embedding").type != pa.list_(pa.float32(), dim):
                raise InputError(f"{file}: column 'embedding' is not of dimension {dim}; extract again")
            for batch in shard.iter_batches(columns=["embedding"]):
                out.write(batch.column(0).flatten().to_numpy().tobytes())
