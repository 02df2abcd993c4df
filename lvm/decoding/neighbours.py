"""The real chunks nearest to a prediction.

A prediction is a mean of what may follow and decodes to bland text. The chunk of the corpus nearest to it was
written by somebody and reads well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from lvm.data.dataset import NO_TEXTS, Dataset
from lvm.data.windows import unit
from lvm.errors import InputError

BLOCK = 8_192
"""Chunks that are compared at once."""


@dataclass(frozen=True)
class RealChunk:
    """A chunk of the corpus, and its similarity to the vector that was searched for."""

    text: str
    doc_id: str
    chunk_index: int
    source: str

    cosine: float
    """To that vector."""


class ChunkLibrary:
    """The chunks of one split of a dataset, searched by cosine."""

    def __init__(self, dataset: Dataset, split: str, device: torch.device) -> None:
        if not dataset.has_texts:
            raise InputError(f"dataset {dataset.path} {NO_TEXTS}")
        self._dataset, self._device = dataset, device
        self.rows = dataset.rows(split)
        """int64 [L]: row of each chunk."""

    def nearest(self, vectors_ND: np.ndarray, hidden_NL: np.ndarray) -> list[RealChunk]:
        """The chunk nearest to each of N vectors; `hidden_NL` (bool) marks those that may not be found for it.

        Raises `InputError` when all are hidden.
        """
        return [found[0] for found in self.nearest_few(vectors_ND, hidden_NL, 1)]

    def nearest_few(self, vectors_ND: np.ndarray, hidden_NL: np.ndarray, k: int) -> list[list[RealChunk]]:
        """The `k` chunks nearest to each vector, nearest first; fewer if `hidden_NL` leaves fewer.

        Raises `InputError` when all are hidden.
        """
        if hidden_NL.all(1).any():
            raise InputError(f"dataset {self._dataset.path} has no chunk that is not in the context already: give a larger one")
        queries = unit(vectors_ND, self._device)
        best = torch.full((len(queries), k), -torch.inf, device=self._device)
        place = torch.zeros(len(queries), k, dtype=torch.int64, device=self._device)
        for start in range(0, len(self.rows), BLOCK):
            part = slice(start, start + BLOCK)
            cosine = queries @ unit(self._dataset.vectors[self.rows[part]], self._device).T
            cosine.masked_fill_(torch.from_numpy(hidden_NL[:, part]).to(self._device), -torch.inf)
            found, at = cosine.topk(min(k, cosine.shape[1]), dim=1)
            best, order = torch.cat([best, found], 1).topk(k, dim=1)
            place = torch.cat([place, at + start], 1).gather(1, order)
        return [
            [self._chunk(int(self.rows[at]), cosine) for at, cosine in zip(places, cosines, strict=True) if cosine > -np.inf]
            for places, cosines in zip(place.tolist(), best.tolist(), strict=True)
        ]

    def embeddings(self, chunks: Sequence[RealChunk]) -> np.ndarray:
        """The stored embeddings of chunks that were found here: float32 [n, D]."""
        return self._dataset.vectors[np.array([self._row(chunk) for chunk in chunks], np.int64)]

    def holding(self, texts: list[str]) -> np.ndarray:
        """bool [L]: which chunks have one of `texts` as their text."""
        return pc.is_in(self._dataset.table.column("text"), pa.array(texts)).to_numpy()[self.rows]

    @cached_property
    def _documents(self) -> dict[str, int]:
        """Number of each document."""
        return {doc_id: number for number, doc_id in enumerate(self._dataset.doc_ids)}

    def _row(self, chunk: RealChunk) -> int:
        document = self._documents[chunk.doc_id]
        start, stop = self._dataset.starts[document : document + 2]
        return int(start + np.flatnonzero(self._dataset.chunk_index[start:stop] == chunk.chunk_index)[0])

    def _chunk(self, row: int, cosine: float) -> RealChunk:
        found = self._dataset.table.slice(row, 1).to_pylist()[0]
        return RealChunk(found["text"], found["doc_id"], found["chunk_index"], found["source"], cosine)
