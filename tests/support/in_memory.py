"""Datasets of a few rows that were never extracted: their texts, splits and vectors are given."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.dataset import Dataset
from lvm.data.manifest import SCHEMA_VERSION, SPLITS, Manifest, Shard, content_key
from lvm.data.recipe import EncoderRecipe

Given = tuple[str, str, Sequence[str]]
"""A document: its id, its split, and the texts of its chunks."""


def in_memory(documents: Sequence[Given], path: Path, vectors: np.ndarray | None = None, digest: str = "0") -> Dataset:
    """A dataset of these documents in this order; `path` is a folder for what is derived from it.

    Without `vectors` no two chunks are alike. `digest` tells the content of one from that of another.
    """
    texts = [text for _, _, own in documents for text in own]
    lengths = [len(own) for _, _, own in documents]
    vectors = np.eye(len(texts), dtype=np.float32) if vectors is None else vectors
    columns = {
        "doc_id": [doc_id for doc_id, _, own in documents for _ in own],
        "chunk_index": pa.array([k for length in lengths for k in range(length)], pa.int32()),
        "split": [split for _, split, own in documents for _ in own],
        "text": texts,
    }
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    splits = np.array([split for _, split, _ in documents], object)
    return Dataset(path, _manifest(digest, vectors.shape[1]), pa.table(columns), vectors, [d[0] for d in documents], starts, splits)


def _manifest(digest: str, dim: int) -> Manifest:
    recipe = EncoderRecipe(name="given", weights_sha256=digest, pooling="mean", dense=False, normalize=False, max_tokens=512, dim=dim)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        key=content_key(SCHEMA_VERSION, digest, ChunkerConfig(), SplitConfig(), recipe),
        source_digest=digest,
        sources=["given"],
        chunker=ChunkerConfig(),
        splits=SplitConfig(),
        recipe=recipe,
        encoder_dtype="float32",
        documents=dict.fromkeys(SPLITS, 0),
        chunks=dict.fromkeys(SPLITS, 0),
        duplicate_groups=0,
        skipped=[],
        ignored_fields=[],
        shards=[Shard(file="none", rows=0, sha256=digest)],
        code_version="0",
    )
