"""Vectors as people bring them: small documents with vectors, the tables and recipes that `lvm import` reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lvm.data.recipe import EncoderRecipe

DIM = 4


def recipe(dim: int = DIM, **changes: Any) -> EncoderRecipe:
    """The recipe of an encoder that is nowhere at hand; it does not normalise."""
    values = {"name": "elsewhere", "weights_sha256": "0", "pooling": "mean", "dense": False, "normalize": False, "max_tokens": 64}
    return EncoderRecipe(**{**values, "dim": dim, **changes})


def recipe_file(path: Path, declared: EncoderRecipe) -> Path:
    """A recipe as JSON."""
    path.write_text(json.dumps(declared.model_dump()), encoding="utf-8")
    return path


def vectors(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Vectors of various lengths, float32 [count, dim], which float16 holds exactly."""
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float16).astype(np.float32) * 2


def documents(lengths: Sequence[int], dim: int = DIM) -> dict[str, Any]:
    """Columns of documents d0, d1, ... in order, the vectors as an array."""
    total = sum(lengths)
    return {
        "doc_id": [f"d{doc}" for doc, length in enumerate(lengths) for _ in range(length)],
        "chunk_index": [k for length in lengths for k in range(length)],
        "text": [f"Chunk {k} of document {doc}." for doc, length in enumerate(lengths) for k in range(length)],
        "embedding": vectors(total, dim),
    }


def table(columns: dict[str, Any], kind: pa.DataType | None = None) -> pa.Table:
    """A table of these columns; the vectors as lists of float32, or as `kind`."""
    found = dict(columns)
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and values.ndim == 2:
            lists = kind or pa.list_(pa.float32())
            found[name] = pa.array([row.astype(lists.value_type.to_pandas_dtype()) for row in values], lists)
    return pa.table(found)


def parquet(path: Path, columns: dict[str, Any], rows: Sequence[int] | None = None, kind: pa.DataType | None = None) -> Path:
    """A Parquet file of these columns, or of some of their rows."""
    whole = table(columns, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(whole if rows is None else whole.take(pa.array(rows, pa.int64())), path)
    return path


def windows(path: Path, own: dict[str, np.ndarray], length: int, stride: int = 1, order: Sequence[int] | None = None) -> Path:
    """An archive of overlapping windows of `length` chunks and the next one, as older pipelines wrote it."""
    found = [(doc_id, x[start : start + length + 1]) for doc_id, x in own.items() for start in range(0, len(x) - length, stride)]
    found = found if order is None else [found[i] for i in order]
    spans = np.stack([span for _, span in found])
    np.savez(path, context_sequences=spans[:, :-1], target_vectors=spans[:, -1], doc_ids=np.array([doc_id for doc_id, _ in found]))
    return path
