"""Small corpora for tests, and an encoder that can be watched and broken."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvm import atomic_io
from lvm.data import corpus
from lvm.data.chunker import Chunker
from lvm.data.encoders import Encoder
from lvm.data.manifest import read_manifest


def write_lines(path: Path, rows: Iterable[Any]) -> str:
    """Write the rows as JSON lines; returns the path as a source."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class WatchedEncoder:
    """The real encoder. It counts calls and texts, can spoil its vectors, and can be interrupted at a call."""

    def __init__(
        self, encoder: Encoder, spoil: Callable[[np.ndarray], np.ndarray] = lambda vectors: vectors, interrupted_at: int | None = None
    ) -> None:
        self.recipe, self.tokenizer, self.dtype, self.group = encoder.recipe, encoder.tokenizer, encoder.dtype, encoder.group
        self.encoder, self.spoil, self.interrupted_at = encoder, spoil, interrupted_at
        self.calls = self.texts = 0

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors of the texts, spoilt."""
        self.calls += 1
        if self.calls == self.interrupted_at:
            raise KeyboardInterrupt
        self.texts += len(texts)
        return self.spoil(self.encoder.encode(texts))


class QuickEncoder(WatchedEncoder):
    """Random vectors that depend on the text alone, at once: for tests that need many documents."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """A vector of unit length for each text."""
        self.calls += 1
        if self.calls == self.interrupted_at:
            raise KeyboardInterrupt
        self.texts += len(texts)
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) for text in texts]
        vectors = np.stack([np.random.default_rng(seed).standard_normal(self.recipe.dim, np.float32) for seed in seeds])
        return self.spoil(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


class Counted:
    """How often each source was read and each text was cut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: Counter[str] = Counter()
        self.cuts: Counter[str] = Counter()
        read, cut = corpus.iter_source, Chunker.cut

        def counting_read(spec: str, *reading: Any) -> Any:
            self.reads[spec] += 1
            return read(spec, *reading)

        def counting_cut(chunker: Chunker, text: str) -> Any:
            self.cuts[text] += 1
            return cut(chunker, text)

        monkeypatch.setattr(corpus, "iter_source", counting_read)
        monkeypatch.setattr(Chunker, "cut", counting_cut)


def shard_digests(out: Path) -> dict[str, str]:
    """The name and SHA-256 of every shard of a dataset."""
    return {shard.file: shard.sha256 for shard in read_manifest(out).shards}


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The shards that are hashed from now on, once for each time."""
    hashed: list[Path] = []
    sha256_file = atomic_io.sha256_file

    def counting(file: Path) -> str:
        if file.suffix == ".parquet":
            hashed.append(file)
        return sha256_file(file)

    monkeypatch.setattr(atomic_io, "sha256_file", counting)
    return hashed
