"""Staged chunks to the Parquet shards of a dataset: each shard is encoded and written before the next one begins."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lvm.atomic_io import replacing, sha256_once
from lvm.data.encoders import Encoder
from lvm.data.manifest import Shard, schema
from lvm.data.reuse import KnownVectors
from lvm.data.staging import StagedChunks
from lvm.data.vectors import unusable_rows
from lvm.errors import InputError

SHARD_ROWS = 16_384
ROW_GROUP_ROWS = 8_192

Progress = Callable[[int, int], None]
"""Called with (chunks done, chunks in all) as encoding goes on."""


REUSED = "lvm.reused"
"""In a shard's metadata: the number of vectors that were taken from other datasets, by the dataset's digest, as JSON."""


@dataclass
class WrittenShards:
    """The shards of a dataset, and where their vectors come from."""

    shards: list[Shard] = field(default_factory=list)

    encoded: int = 0
    """Chunks that were encoded now."""

    reused: Counter[str] = field(default_factory=Counter)
    """Vectors that were taken from other datasets, now or before an interruption, by the dataset's digest."""


def write_shards(
    chunks: StagedChunks, encoder: Encoder, known: KnownVectors, metadata: dict[str, str], out: Path, progress: Progress
) -> WrittenShards:
    """Write the shards that are not in `out` yet. Chunks whose vectors are not `known` are encoded."""
    written, total = WrittenShards(), len(chunks.table)
    for number, start in enumerate(range(0, total, SHARD_ROWS)):
        file = out / f"chunks-{number:05d}.parquet"
        part = chunks.table.slice(start, SHARD_ROWS)
        if _is_finished(file, metadata["lvm.key"], len(part)):
            progress(start + len(part), total)
            taken = _reused(file)
        else:
            vectors = np.empty((len(part), encoder.recipe.dim), np.float32)
            missing, taken = known.read(start, vectors)
            _encode(part, missing, encoder, vectors, partial(_advance, progress, start, total))
            about = metadata | ({REUSED: json.dumps(taken)} if taken else {})
            _write_shard(file, part, chunks.row_splits[start : start + len(part)], vectors, about)
            written.encoded += len(missing)
        written.reused += taken
        written.shards.append(Shard(file=file.name, rows=len(part), sha256=sha256_once(file)))
    return written


def store_vectors(
    chunks: StagedChunks, vectors_ND: np.ndarray, rows: np.ndarray, metadata: dict[str, str], out: Path, progress: Progress
) -> list[Shard]:
    """Write the shards of chunks whose vectors exist: that of chunk i is row `rows[i]` of `vectors_ND`, which may be mapped from a file."""
    shards, total = [], len(chunks.table)
    for number, start in enumerate(range(0, total, SHARD_ROWS)):
        file = out / f"chunks-{number:05d}.parquet"
        part = chunks.table.slice(start, SHARD_ROWS)
        stop = start + len(part)
        _write_shard(file, part, chunks.row_splits[start:stop], np.asarray(vectors_ND[rows[start:stop]]), metadata)
        shards.append(Shard(file=file.name, rows=len(part), sha256=sha256_once(file)))
        progress(stop, total)
    return shards


def _write_shard(file: Path, part: pa.Table, splits: list[str], vectors: np.ndarray, metadata: dict[str, str]) -> None:
    """Write the rows of `part` with their splits and vectors. The file appears when it is complete."""
    dim = vectors.shape[1]
    columns = schema(dim, metadata)
    values = {name: part.column(name) for name in part.column_names}
    values["split"] = pa.array(splits)
    values["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    with replacing(file) as temporary:
        # Vectors neither compress nor repeat: plain storage reads 2.5 times faster.
        compression = {column.name: "none" if column.name == "embedding" else "zstd" for column in columns}
        pq.write_table(
            pa.table([values[column.name] for column in columns], schema=columns),
            temporary,
            row_group_size=ROW_GROUP_ROWS,
            compression=compression | {"embedding.list.element": "none"},
            use_dictionary=["doc_id", "source", "split"],
        )


def _advance(progress: Progress, start: int, total: int, done: int) -> None:
    progress(start + done, total)


def _is_finished(file: Path, key: str, rows: int) -> bool:
    """Whether an earlier, interrupted run wrote this shard. A shard appears by a rename, so it is whole."""
    if not file.exists():
        return False
    try:
        found = pq.read_metadata(file)
    except (OSError, ValueError):  # not Parquet, or truncated since: it is written again
        return False
    return (found.metadata or {}).get(b"lvm.key") == key.encode() and found.num_rows == rows


def _reused(file: Path) -> Counter[str]:
    """Vectors of a finished shard that were taken from other datasets."""
    return Counter(json.loads((pq.read_metadata(file).metadata or {}).get(REUSED.encode(), b"{}")))


def _encode(part: pa.Table, missing: np.ndarray, encoder: Encoder, vectors: np.ndarray, progress: Callable[[int], None]) -> None:
    """Fill in the `missing` vectors of one shard. Encodes the longest texts first, so that batches need little padding."""
    texts = part.column("text").to_pylist()
    order = missing[np.argsort(-part.column("n_tokens").to_numpy()[missing], kind="stable")]
    known = len(texts) - len(missing)
    if known:
        progress(known)
    for start in range(0, len(order), encoder.group):
        rows = order[start : start + encoder.group]
        encoded = encoder.encode([texts[i] for i in rows])
        if encoded.shape != (len(rows), encoder.recipe.dim):
            raise InputError(f"the encoder gave vectors of shape {encoded.shape}, its recipe says dimension {encoder.recipe.dim}")
        vectors[rows] = encoded
        progress(known + start + len(rows))
    bad = unusable_rows(vectors)
    if len(bad):
        names = {part.column("doc_id")[int(row)].as_py() for row in bad[:5]}
        raise InputError(f"the encoder gave {len(bad)} zero or non-finite vectors, in {sorted(names)}: check its weights and dtype")
