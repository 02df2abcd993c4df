"""Datasets whose vectors follow a known law."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Replace

from lvm.data.dataset import Dataset, open_dataset
from lvm.data.extract import extract
from lvm.data.recipe import EncoderRecipe

DIM = 6


DOCUMENTS, CHUNKS = 70, 30


class TableEncoder:
    """An encoder that looks its vectors up, so that a dataset can follow a known law."""

    dtype = "float32"
    group = 1024

    def __init__(self, vectors: Mapping[str, np.ndarray]) -> None:
        self.vectors = vectors
        dim = len(next(iter(vectors.values())))
        self.recipe = EncoderRecipe(
            name="table", weights_sha256="0" * 64, pooling="mean", dense=False, normalize=False, max_tokens=512, dim=dim
        )
        self.tokenizer = Tokenizer(WordLevel({"?": 0}))  # every text is one token, and a known one
        self.tokenizer.normalizer = Replace(Regex(r"[\s\S]+"), "?")

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        return np.array([self.vectors[text] for text in texts], np.float32)


def planted(folder: Path, documents: Sequence[np.ndarray]) -> Dataset:
    """A dataset whose document i has the vectors `documents[i]`, extracted as any other."""
    vectors = {f"Document {i} row {k}": vector for i, document in enumerate(documents) for k, vector in enumerate(document)}
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, document in enumerate(documents):
        (corpus / f"{i:04d}.txt").write_text("\n".join(f"Document {i} row {k}" for k in range(len(document))), encoding="utf-8")
    extract([str(corpus)], folder / "dataset", TableEncoder(vectors))
    return open_dataset(folder / "dataset")


def grown(step: Callable[[np.ndarray, np.random.Generator], np.ndarray], dim: int = DIM, seed: int = 0) -> list[np.ndarray]:
    """Documents in which `step` makes each vector from those before it, after eight random ones."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(DOCUMENTS):
        vectors = rng.normal(size=(8, dim))
        while len(vectors) < CHUNKS + 8:
            vectors = np.concatenate([vectors, step(vectors, rng)[None]])
        documents.append(vectors[8:])
    return documents
