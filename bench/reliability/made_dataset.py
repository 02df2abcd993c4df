"""A made-up dataset without text or encoder: each document is a random walk around a place of its own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lvm import __version__
from lvm.atomic_io import digest_json, sha256_file
from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.manifest import SCHEMA_VERSION, SPLITS, Manifest, Shard, content_key, footer, schema, write_manifest
from lvm.data.recipe import EncoderRecipe

TOPIC, PLACE, MEMORY, TURN = 0.6, 0.8, 0.8, 0.35
"""Length of the vector that all chunks share and of a document's own place; share of a walk that each step keeps, and what it adds."""


def _wandering(documents: int, dim: int, seed: int) -> tuple[list[np.ndarray], list[str], list[int], list[str]]:
    """Vector, document, position and split of every chunk."""
    rng = np.random.default_rng(seed)
    common = TOPIC * direction(rng, dim)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]  # the next step is a rotation of the last one, not a copy
    vectors: list[np.ndarray] = []
    ids: list[str] = []
    indices: list[int] = []
    splits: list[str] = []
    for number in range(documents):
        length = int(rng.integers(20, 201))
        place, step = PLACE * direction(rng, dim), np.zeros(dim)
        for index in range(length):
            step = MEMORY * (0.7 * step + 0.3 * turn @ step) + TURN * direction(rng, dim)
            found = common + place + step
            vectors.append((found / np.linalg.norm(found)).astype(np.float32))
            indices.append(index)
        ids += [f"made-{number:06d}"] * length
        splits += ["val" if number % 10 == 8 else "test" if number % 10 == 9 else "train"] * length
    return vectors, ids, indices, splits


def make_dataset(out: Path, documents: int, dim: int, seed: int = 0) -> Path:
    """Write `documents` documents of 20 to 200 chunks with unit vectors of dimension `dim`; returns `out`."""
    vectors, ids, indices, splits = _wandering(documents, dim, seed)
    stated = {"made": "two_devices", "documents": documents, "dim": dim, "seed": seed}
    digest, chunker = digest_json(stated), ChunkerConfig()
    recipe = EncoderRecipe(
        name="made", weights_sha256=digest, pooling="mean", dense=False, normalize=True, max_tokens=chunker.max_tokens, dim=dim
    )
    key = content_key(SCHEMA_VERSION, digest, chunker, SplitConfig(), recipe)
    columns = schema(dim, footer(key, digest, chunker, recipe))
    flat = np.asarray(vectors, np.float32).ravel()
    values = [
        pa.array(ids),
        pa.array(indices, pa.int32()),
        pa.array(["made"] * len(ids)),
        pa.array(splits),
        pa.array([f"{doc} {index}" for doc, index in zip(ids, indices, strict=True)]),
        pa.array([2] * len(ids), pa.int16()),
        pa.FixedSizeListArray.from_arrays(pa.array(flat), dim),
    ]
    out.mkdir(parents=True, exist_ok=True)
    file = out / "chunks-00000.parquet"
    pq.write_table(pa.table(values, schema=columns), file)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        key=key,
        source_digest=digest,
        sources=["made"],
        chunker=chunker,
        splits=SplitConfig(),
        recipe=recipe,
        encoder_dtype="float32",
        documents={split: len({doc for doc, own in zip(ids, splits, strict=True) if own == split}) for split in SPLITS},
        chunks={split: splits.count(split) for split in SPLITS},
        duplicate_groups=0,
        skipped=[],
        ignored_fields=[],
        shards=[Shard(file=file.name, rows=len(ids), sha256=sha256_file(file))],
        code_version=__version__,
    )
    write_manifest(out, manifest)
    return out


def direction(rng: np.random.Generator, dim: int) -> np.ndarray:
    """A random vector of unit length."""
    found = rng.normal(size=dim)
    return found / np.linalg.norm(found)
