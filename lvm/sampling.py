"""Batches of document stretches, drawn so that a batch is diverse.

A batch full of one document makes its average look like a good answer. So a document's stretches
are spread over the epoch, a stretch is cropped at random (a context is any window of a document,
not its beginning), and contrastive anchors per document can be capped.
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
    """bool [S, L]: False where the document has ended and rows repeat its last chunk."""

    anchors: np.ndarray
    """bool [S, L]: the valid positions that take part in the contrastive term."""

    docs: np.ndarray
    """int64 [S]: document numbers."""

    negatives: np.ndarray
    """int64 [S, E]: rows of the same document outside the stretch, -1 where it has none."""


class DiverseBatchSampler:
    """Yields the batches of an epoch; seeded, and resumable at any step.

    `starts` [n_docs + 1] are the documents' first rows, `docs` the numbers of those to draw
    from. A document of n chunks is visited ceil((n - 1) / length) times an epoch. Everything
    about epoch e follows from (seed, e), so a position (epoch, step) is the whole state.
    """

    def __init__(self, starts: np.ndarray, docs: np.ndarray, config: SamplerConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._starts = starts
        self._docs = docs
        self._lengths = (starts[1:] - starts[:-1])[docs]
        self._visits = -(-(self._lengths - 1) // config.length)
        self.steps_per_epoch = max(1, int(self._visits.sum()) // config.stretches)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches of epoch `epoch` from `first_step` on."""
        rng = np.random.default_rng([self.seed, epoch])
        which = np.repeat(np.arange(len(self._docs)), self._visits)
        # Visit k of n gets a key in [k/n, (k+1)/n): a document's visits spread over the epoch.
        first = np.concatenate([[0], np.cumsum(self._visits)[:-1]])
        visit = np.arange(len(which)) - first[which]
        order = np.argsort((visit + rng.random(len(which))) / self._visits[which], kind="stable")
        which = which[order]
        room = np.maximum(self._lengths[which] - self.config.length - 1, 0)
        offset = rng.integers(0, room + 1)
        for step in range(first_step, self.steps_per_epoch):
            take = slice(step * self.config.stretches, (step + 1) * self.config.stretches)
            yield self._batch(which[take], offset[take], np.random.default_rng([self.seed, epoch, step]))

    def _batch(self, which: np.ndarray, offset: np.ndarray, rng: np.random.Generator) -> Batch:
        length = self.config.length
        docs, n = self._docs[which], self._lengths[which]
        position = offset[:, None] + np.arange(length + 1)
        valid = position[:, 1:] < n[:, None]
        rows = self._starts[docs][:, None] + np.minimum(position, n[:, None] - 1)
        return Batch(rows, valid, self._cap(valid, docs, rng), docs, self._hard_negatives(docs, n, offset, rng))

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

    def _hard_negatives(self, docs: np.ndarray, n: np.ndarray, offset: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Random rows of each stretch's document that the stretch does not hold."""
        inside = np.minimum(self.config.length + 1, n)
        outside = n - inside
        draw = (rng.random((len(docs), self.config.hard_negatives)) * outside[:, None]).astype(np.int64)
        position = np.where(draw < offset[:, None], draw, draw + inside[:, None])
        return np.where(outside[:, None] > 0, self._starts[docs][:, None] + position, -1)
