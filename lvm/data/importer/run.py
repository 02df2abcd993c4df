"""Vectors that exist already to the dataset of record: read, checked, put in order, divided and written."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from lvm import __version__
from lvm.atomic_io import digest_json
from lvm.config import SplitConfig
from lvm.data.extract import finished_dataset
from lvm.data.importer.agreement import check_encoder
from lvm.data.importer.gathered import Gathered, gather
from lvm.data.importer.inputs import Inputs
from lvm.data.importer.order import Ordered, order_rows
from lvm.data.manifest import SCHEMA_VERSION, SPLITS, Manifest, Shard, content_key, footer, schema, write_manifest
from lvm.data.recipe import EncoderRecipe
from lvm.data.shards import Progress, store_vectors
from lvm.data.splits import assign_splits, duplicate_groups
from lvm.data.staging import StagedChunks

UNKNOWN = "unknown"
"""The precision of the encoder that made imported vectors."""

DIGEST_ROWS = 16_384
"""Rows that are hashed at once."""


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    path: Path
    manifest: Manifest

    reused: bool
    """Whether the dataset was there already."""

    columns: dict[str, str] = field(default_factory=dict)
    """Field -> column, where they have different names."""

    remarks: list[str] = field(default_factory=list)
    """Sentences, without a capital and a full stop: what was checked, and what cannot be known."""


def _no_progress(done: int, total: int) -> None:
    """Show nothing."""


def import_vectors(
    files: Sequence[Path],
    recipe: EncoderRecipe,
    out: Path,
    splits: SplitConfig = SplitConfig(),
    columns: Mapping[str, str] | None = None,
    ids: Path | None = None,
    in_order: bool = False,
    keep_going: bool = False,
    device: str = "cpu",
    progress: Progress = _no_progress,
) -> Imported:
    """Turn the vectors in `files`, which `recipe` declares, into a dataset at `out`, or return at once when it is there and whole.

    `columns` are those of `parse_columns`, `ids` the file beside an .npy file. Raises `InputError` as `Inputs`, `gather`, `order_rows` and
    `check_encoder` do, and when `out` holds another dataset.
    """
    inputs = Inputs(list(files), recipe.dim, columns or {}, ids, in_order)
    with gather(inputs, recipe, out, in_order) as gathered:
        ordered = order_rows(gathered, keep_going)
        chunks = _divided(gathered, ordered, splits)
        source_digest = _source_digest(chunks.table, gathered.digests[ordered.rows])
        key = content_key(SCHEMA_VERSION, source_digest, None, splits, recipe)
        remarks = [*dict.fromkeys(inputs.remarks), _how_divided(gathered)]
        manifest = finished_dataset(out, key, recipe)
        if manifest is not None:
            return Imported(out, manifest, True, inputs.renamed, remarks)
        texts = None if gathered.texts is None else chunks.table.column("text")
        remarks.append(check_encoder(texts, gathered.vectors, ordered.rows, recipe, device))
        metadata = footer(key, source_digest, None, recipe) | {"lvm.encoder": recipe.name, "lvm.code_version": __version__}
        shards = store_vectors(chunks, gathered.vectors, ordered.rows, metadata, out, progress)
        skipped = inputs.skipped + gathered.skipped + ordered.skipped
        manifest = _manifest(key, source_digest, chunks, splits, recipe, shards, [vars(item) for item in skipped], sorted(inputs.ignored))
    write_manifest(out, manifest)
    return Imported(out, manifest, False, inputs.renamed, remarks)


def _divided(gathered: Gathered, ordered: Ordered, config: SplitConfig) -> StagedChunks:
    """The chunks in their order, without vectors, with the split of each. Documents of much common text, or vectors, stay together."""
    rows, lengths = ordered.rows, np.diff(ordered.starts)
    names = np.array(gathered.source_names, object)
    n = len(rows)
    values = {
        "doc_id": pa.array(ordered.doc_ids, pa.string()).take(pa.array(np.repeat(np.arange(len(lengths)), lengths))),
        "chunk_index": pa.array(np.arange(n) - np.repeat(ordered.starts[:-1], lengths), pa.int32()),
        "source": pa.array(names[gathered.source[rows]], pa.string()),
        "text": pa.nulls(n, pa.string()) if gathered.texts is None else _taken(gathered.texts, rows),
        "n_tokens": pa.nulls(n, pa.int16()),
    }
    columns = [column for column in schema(1) if column.name in values]
    table = pa.table([values[column.name] for column in columns], schema=pa.schema(columns))
    hashes = gathered.digests[rows, 0] if gathered.texts is None else _text_hashes(table)
    groups = duplicate_groups(np.split(hashes, ordered.starts[1:-1]), config.min_shared)
    doc_splits = assign_splits(ordered.doc_ids, groups, config)
    row_splits = np.repeat(np.array(doc_splits, object), lengths).tolist()
    return StagedChunks(table, doc_splits, row_splits, int((np.bincount(groups) > 1).sum()), [])


def _taken(texts: pa.Array, rows: np.ndarray) -> pa.ChunkedArray:
    """Some texts as strings, in chunks that are small enough for them."""
    parts = [texts.take(pa.array(rows[start : start + DIGEST_ROWS])).cast(pa.string()) for start in range(0, len(rows), DIGEST_ROWS)]
    return pa.chunked_array(parts, pa.string())


def _text_hashes(table: pa.Table) -> np.ndarray:
    """A hash of each text, uint64."""
    texts = (text.as_py().encode() for text in table.column("text"))
    return np.fromiter((int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) for text in texts), np.uint64, len(table))


def _source_digest(table: pa.Table, digests: np.ndarray) -> str:
    """SHA-256 over ids, texts, sources and vectors of all chunks, in their order."""
    rows = hashlib.sha256()
    for start in range(0, len(table), DIGEST_ROWS):
        rows.update(json.dumps(table.slice(start, DIGEST_ROWS).to_pydict()).encode())
    return digest_json([rows.hexdigest(), hashlib.sha256(np.ascontiguousarray(digests).data).hexdigest()])


def _how_divided(gathered: Gathered) -> str:
    if gathered.texts is None:
        return "there are no texts: documents with equal vectors were kept in one split, and what needs texts is not available"
    return "documents with equal texts were kept in one split"


def _manifest(
    key: str,
    source_digest: str,
    chunks: StagedChunks,
    splits: SplitConfig,
    recipe: EncoderRecipe,
    shards: list[Shard],
    skipped: list[dict[str, str]],
    ignored: list[str],
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        key=key,
        source_digest=source_digest,
        sources=sorted(set(chunks.table.column("source").unique().to_pylist())),
        chunker=None,
        splits=splits,
        recipe=recipe,
        encoder_dtype=UNKNOWN,
        documents={split: chunks.doc_splits.count(split) for split in SPLITS},
        chunks={split: chunks.row_splits.count(split) for split in SPLITS},
        duplicate_groups=chunks.duplicate_groups,
        skipped=skipped,
        ignored_fields=ignored,
        shards=shards,
        code_version=__version__,
    )
