"""Batches of document stretches, drawn so that a batch is diverse.

In a batch full of one document, that document's average looks like a good prediction. So the stretches of a document are spread over the
epoch, stretches are cut at random places (a context may be any window of a document), and contrastive anchors per document can be
capped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lvm.config import SamplerConfig


@dataclass(frozen=True)
class Batch:
    """Row numbers of one batch: S stretches of L predicted positions, E hard negatives each."""

    rows: np.ndarray
    """int64 [S, L + 1]: chunks in order; position l reads rows[:, l] and predicts rows[:, l + 1]."""

    valid: np.ndarray
    """bool [S, L]: False after the end of a stretch, where `rows` repeat its last chunk."""

    anchors: np.ndarray
    """bool [S, L]: the valid positions that take part in the contrastive term."""

    docs: np.ndarray
    """int64 [S]: document numbers."""

    negatives: np.ndarray
    """int64 [S, E]: rows of the same document outside the stretch; -1 where there are none."""


class DiverseBatchSampler:
    """Yields the batches of an epoch; seeded, and resumable at any step.

    `starts` [n_docs + 1] are the documents' first rows, `docs` the numbers of the documents to draw from. Each epoch cuts every document
    into stretches of `length` at a random phase. So every position is predicted once in an epoch, except those of the last, incomplete
    batch, and in time every window of a document is a context. Epoch e follows from (seed, e) alone, so (epoch, step) is the whole
    state.
    """

    def __init__(self, starts: np.ndarray, docs: np.ndarray, config: SamplerConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._starts = starts
        self._docs = docs
        self._positions = (starts[1:] - starts[:-1])[docs] - 1

    def steps(self, epoch: int) -> int:
        """Number of batches of an epoch; at least one."""
        return max(1, len(self._stretches(epoch)[0]) // self.config.stretches)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches of epoch `epoch` from `first_step` on."""
        which, begin, end = self._stretches(epoch)
        for step in range(first_step, self.steps(epoch)):
            take = slice(step * self.config.stretches, (step + 1) * self.config.stretches)
            yield self._batch(which[take], begin[take], end[take], np.random.default_rng([self.seed, epoch, step]))

    def _stretches(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Document, first position and end position of every stretch, in the order of the epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        length, positions = self.config.length, self._positions
        # A document that fits into one stretch is not cut, so its phase is 0.
        phase = np.where(positions > length, rng.integers(0, length, len(positions)), 0)
        count = -(-(positions + phase) // length)
        which = np.repeat(np.arange(len(positions)), count)
        number = np.arange(len(which)) - (np.cumsum(count) - count)[which]
        begin = np.maximum(number * length - phase[which], 0)
        end = np.minimum((number + 1) * length - phase[which], positions[which])
        # Each of a document's stretches, in random order, gets a slot of its own in the epoch, so that they spread.
        shuffled = np.lexsort((rng.random(len(which)), which))
        key = np.empty(len(which))
        key[shuffled] = (number + rng.random(len(which))) / count[which]
        order = np.argsort(key, kind="stable")
        return which[order], begin[order], end[order]

    def _batch(self, which: np.ndarray, begin: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> Batch:
        docs, first = self._docs[which], self._starts[self._docs[which]]
        position = begin[:, None] + np.arange(self.config.length + 1)
        valid = position[:, :-1] < end[:, None]
        rows = first[:, None] + np.minimum(position, end[:, None])
        anchors = self._cap(valid, docs, rng)
        return Batch(rows, valid, anchors, docs, self._hard_negatives(first, self._positions[which] + 1, begin, end, rng))

    def _cap(self, valid: np.ndarray, docs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Keep at most `anchors_per_document` random positions of each document."""
        cap = self.config.anchors_per_document
        if cap is None:
            return valid
        flat = np.flatnonzero(valid)
        flat = flat[rng.permutation(len(flat))]
        owner = docs[flat // valid.shape[1]]
        order = np.argsort(owner, kind="stable")
        owner = owner[order]
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
        anchors = np.zeros(valid.size, bool)
        anchors[flat[order[rank < cap]]] = True
        return anchors.reshape(valid.shape)

    def _hard_negatives(self, first: np.ndarray, n: np.ndarray, begin: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Random rows of each stretch's document that are not in the stretch."""
        inside = end - begin + 1
        outside = n - inside
        draw = (rng.random((len(n), self.config.hard_negatives)) * outside[:, None]).astype(np.int64)
        position = np.where(draw < begin[:, None], draw, draw + inside[:, None])
        return np.where(outside[:, None] > 0, first[:, None] + position, -1)
