"""Whether chunks stand where they belong, told from what surrounds them.

A chunk fits where it is like the two chunks before and the two after. Where chunks were exchanged between documents, the place that an
exchanged one has now fits it no better than any other: of the places in other documents, a share that is uniform in (0, 1) fits it
better. So three in ten of the exchanged chunks fit better at more than seven in ten of all places, which chunks at their own place
rarely do. Some documents hold such chunks by their nature (lists, tables of numbers), and only those whose chunks fit best are counted.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from lvm.data.dataset import Dataset
from lvm.gates.data.rows import unit_rows

REACH = 2
"""Chunks before and after that surround one."""


PLACES = 512
"""Random places that each chunk is tried at."""


SHORTEST = 8
"""Documents of fewer chunks are left out: a few exchanged ones would decide how well all others fit."""


SAMPLED_DOCUMENTS = 400
"""Documents that are read at most, and of each so many chunks (`SAMPLED_CHUNKS`)."""


SAMPLED_CHUNKS = 512


ELSEWHERE = 0.7
"""A chunk that fits better at more than this share of the places in other documents counts as misplaced."""


MOST_FIT = 0.75
"""Documents are ranked by how well so many of their chunks fit. The worst quarter has no say, where a tenth of all was exchanged."""


COUNTED = 0.25
"""The share of the documents that is counted: those that rank best."""


FEWEST = 4
"""Fewer documents tell nothing."""


@dataclass(frozen=True)
class Misplaced:
    """How many chunks fit better nearly everywhere else than where they stand."""

    found: int
    chunks: int
    """That were counted, those found among them; 0 where there are too few documents."""

    @property
    def share(self) -> float:
        """Estimated share of exchanged chunks, if no other chunk is found (Storey 2002, eq. 2)."""
        return self.found / max(self.chunks, 1) / (1 - ELSEWHERE)

    def surely_over(self, limit: float) -> bool:
        """Whether the lower 99 % bound of the share is over the limit (Clopper & Pearson 1934)."""
        if not self.found:
            return False
        low = binomtest(self.found, self.chunks, alternative="greater").proportion_ci(0.99).low
        return bool(low / (1 - ELSEWHERE) > limit)


class Places:
    """Random places of a dataset, and how well the chunks of its documents fit there."""

    def __init__(self, dataset: Dataset, seed: int = 0) -> None:
        self.dataset, self._rng = dataset, np.random.default_rng(seed)
        rows = np.sort(self._rng.choice(dataset.n_rows, min(PLACES, dataset.n_rows), replace=False))
        self._around = np.stack([surroundings_of_row(dataset, row) for row in rows])
        self._docs = dataset.row_doc[rows]

    def misplaced(self, docs: np.ndarray) -> Misplaced:
        """The misplaced chunks of up to 400 random documents among `docs`."""
        long = docs[np.diff(self.dataset.starts)[docs] >= SHORTEST]
        better = [self.better_elsewhere(doc) for doc in self._rng.permutation(long)[:SAMPLED_DOCUMENTS]]
        better = [shares for shares in better if len(shares)]
        if len(better) < FEWEST:
            return Misplaced(0, 0)
        order = np.argsort([np.quantile(shares, MOST_FIT) for shares in better], kind="stable")
        counted = np.concatenate([better[i] for i in order[: math.ceil(COUNTED * len(better))]])
        return Misplaced(int((counted > ELSEWHERE).sum()), len(counted))

    def better_elsewhere(self, doc: int) -> np.ndarray:
        """For each chunk of a document, the share of the places in other documents that fit it better than its own: float64 [chunks].

        Empty when there is no such place.
        """
        elsewhere, start = self._around[self._docs != doc], self.dataset.starts[doc]
        if not len(elsewhere):
            return np.zeros(0)
        x = unit_rows(self.dataset, start, min(self.dataset.starts[doc + 1], start + SAMPLED_CHUNKS))
        own = (x * surroundings(x)).sum(1)
        return (x @ elsewhere.T > own[:, None]).mean(1)


def surroundings(unit_ND: np.ndarray) -> np.ndarray:
    """The direction of the chunks around each chunk of a document, without itself: unit vectors [N, D], zero for a lone chunk."""
    around = np.zeros_like(unit_ND)
    for distance in range(1, REACH + 1):
        around[distance:] += unit_ND[:-distance]
        around[:-distance] += unit_ND[distance:]
    return around / np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-12)


def surroundings_of_row(dataset: Dataset, row: int) -> np.ndarray:
    """The same for one row of the dataset: [D]."""
    doc = dataset.row_doc[row]
    start = max(row - REACH, dataset.starts[doc])
    around = unit_rows(dataset, start, min(row + REACH + 1, dataset.starts[doc + 1]))
    return surroundings(around)[row - start]
