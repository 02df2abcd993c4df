"""Staged chunks to the Parquet shards of a dataset: each shard is encoded and written before the next one begins."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lvm.atomic_io import replacing, sha256_once
from lvm.data.encoders import Encoder
from lvm.data.manifest import Shard, schema
from lvm.data.staging import StagedChunks
from lvm.data.vectors import unusable_rows
from lvm.errors import InputError

SHARD_ROWS = 16_384
ROW_GROUP_ROWS = 8_192

Progress = Callable[[int, int], None]
"""Called with (chunks done, chunks in all) as encoding goes on."""


def write_shards(
    chunks: StagedChunks, encoder: Encoder, metadata: dict[str, str], out: Path, progress: Progress
) -> tuple[list[Shard], int]:
    """Encode and write the shards that are not in `out` yet. Returns all shards, and the number of chunks encoded now."""
    shards, encoded, total = [], 0, len(chunks.table)
    for number, start in enumerate(range(0, total, SHARD_ROWS)):
        file = out / f"chunks-{number:05d}.parquet"
        part = chunks.table.slice(start, SHARD_ROWS)
        if _is_finished(file, metadata["lvm.key"], len(part)):
            progress(start + len(part), total)
        else:
            vectors = _encode(part, encoder, partial(_advance, progress, start, total))
            _write_shard(file, part, chunks.row_splits[start : start + len(part)], vectors, metadata)
            encoded += len(part)
        shards.append(Shard(file=file.name, rows=len(part), sha256=sha256_once(file)))
    return shards, encoded


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


def _encode(part: pa.Table, encoder: Encoder, progress: Callable[[int], None]) -> np.ndarray:
    """The vectors of one shard, float32 [rows, dim]. Encodes the longest texts first, so that batches need little padding."""
    texts = part.column("text").to_pylist()
    order = np.argsort(-part.column("n_tokens").to_numpy(), kind="stable")
    vectors = np.empty((len(texts), encoder.recipe.dim), np.float32)
    for start in range(0, len(order), encoder.group):
        rows = order[start : start + encoder.group]
        encoded = encoder.encode([texts[i] for i in rows])
        if encoded.shape != (len(rows), encoder.recipe.dim):
            raise InputError(f"the encoder gave vectors of shape {encoded.shape}, its recipe says dimension {encoder.recipe.dim}")
        vectors[rows] = encoded
        progress(start + len(rows))
    bad = unusable_rows(vectors)
    if len(bad):
        names = {part.column("doc_id")[int(row)].as_py() for row in bad[:5]}
        raise InputError(f"the encoder gave {len(bad)} zero or non-finite vectors, in {sorted(names)}: check its weights and dtype")
    return vectors
