"""Decoders for tests: one that finds the stored chunk of a vector, and so decodes true vectors perfectly, and one that cannot decode."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.gates import encoder_contract
from lvm.decoding.load import LoadedDecoder
from lvm.decoding.protocol import Decoded, Decoder, require_vectors


class LookupDecoder:
    """The text of the stored chunk nearest to the vector; its round trip is by the real encoder."""

    def __init__(self, dataset: Dataset, encoder: Encoder) -> None:
        self.recipe, self.encoder = encoder.recipe, encoder
        self._dataset = dataset
        self._unit = dataset.vectors / np.linalg.norm(dataset.vectors, axis=1, keepdims=True)

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        checked = require_vectors(vectors, self.recipe)
        return written(self.encoder, self._dataset.texts((checked @ self._unit.T).argmax(1)), checked)


class ConstantDecoder:
    """The same text for every vector."""

    def __init__(self, encoder: Encoder, text: str = "Fellow citizens of the Senate and of the House of Representatives.") -> None:
        self.recipe, self.encoder, self._text = encoder.recipe, encoder, text

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        return written(self.encoder, [self._text] * len(vectors), require_vectors(vectors, self.recipe))


def written(encoder: Encoder, texts: list[str], vectors: np.ndarray) -> list[Decoded]:
    """`texts` with the cosine of their embeddings to `vectors`."""
    embedded = encoder.encode(texts)
    norms = np.linalg.norm(embedded, axis=1) * np.linalg.norm(vectors, axis=1)
    return [Decoded(text, float(cosine), 0) for text, cosine in zip(texts, (embedded * vectors).sum(1) / norms, strict=True)]


def opened(decoder: Decoder, dataset: Dataset) -> LoadedDecoder:
    """`decoder` as `open_decoder` gives it for `dataset`."""
    return LoadedDecoder("lookup", decoder, encoder_contract(dataset, decoder))


def loader(decoder: Decoder, calls: list[str] | None = None) -> Callable[..., Decoder]:
    """Replacement for `load_decoder` that returns `decoder` for every name and notes the names."""

    def load(name: str | Path, device: str = "cpu", steps: int | None = None, encoder: Encoder | None = None) -> Decoder:
        if calls is not None:
            calls.append(str(name))
        return decoder

    return load
