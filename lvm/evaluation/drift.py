"""Drift of skill and of embeddings: permutation tests between a night's documents and those of the training dataset (the record).

Chunks of one document are not independent, so the tests permute whole documents: if both sets have the same distribution,
every division into two sets of these sizes is equally likely, and the p-value is exact for any number of documents
(Good 2005, ch. 3). An interval gives the size of the change.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import Evaluation
from lvm.evaluation.intervals import MIN_DOCUMENTS, Estimate, Interval, difference_interval, document_sums, t_interval

RESHUFFLES = 9_999
"""Random permutations of a test."""


SAMPLED_DOCUMENTS = 400
"""Documents of a side that `embedding_drift` reads at most."""


SAMPLED_CHUNKS = 32
"""Chunks of a document that it reads at most."""


@dataclass(frozen=True)
class SkillDrift:
    """Skill on the night's documents beside skill on the champion's own test documents."""

    night: Interval
    own: Interval
    difference: Interval
    p: float
    """Share of permutations with an equal or greater loss."""

    least_p: float
    """Smallest p-value that this number of documents allows."""


@dataclass(frozen=True)
class EmbeddingDrift:
    """Distance between the night's embeddings and the training embeddings."""

    share: Interval
    """Energy distance over the mean distance between documents of the two sides; 0 in expectation if nothing changed."""

    p: float
    """Share of permutations with an equal or greater distance."""

    chance: float
    """Value of `share` that chance alone exceeds in one night in a thousand."""

    documents: tuple[int, int]
    """Number of documents of the night, and of the record."""


def skill_drift(night: Evaluation, own: Evaluation, metric: str) -> SkillDrift:
    """Compare one model's skill in `metric` on two sets of documents, against the same baselines.

    For retrieval both evaluations must have pools of one size: a larger pool is harder and would look like a loss.
    """
    values = [found.skills(metric) for found in (night, own)]
    docs = [found.windows.docs for found in (night, own)]
    sides = [document_sums(*side) for side in zip(values, docs, strict=True)]
    sums, counts = (np.concatenate(part) for part in zip(*sides, strict=True))
    first = len(sides[0][1])

    def loss(labels: np.ndarray) -> np.ndarray:
        return (1 - labels) @ sums / ((1 - labels) @ counts) - labels @ sums / (labels @ counts)

    p, _ = _reshuffled(loss, first, len(counts))
    least = 1 / min(math.comb(len(counts), first), RESHUFFLES + 1)
    return SkillDrift(night.skill(metric), own.skill(metric), difference_interval(values[0], docs[0], values[1], docs[1]), p, least)


def embedding_drift(night: Dataset, record: Dataset) -> EmbeddingDrift:
    """Energy distance (Székely & Rizzo 2013) between the chunks of the night and those of the record's training documents.

    It is 0 for equal distributions only. The distance between two documents is the mean distance between their chunks at
    unit length, so that it does not depend on their lengths; a document is never compared with itself. Uses at most
    400 documents a side and 32 chunks a document, drawn with a fixed seed.
    """
    sides = [_chunks(night, night.docs("all")), _chunks(record, record.docs("train"))]
    first, total = len(sides[0]), len(sides[0]) + len(sides[1])
    distances = document_distances([*sides[0], *sides[1]])

    def share(labels: np.ndarray) -> np.ndarray:
        return energy_share(distances, labels)

    p, chance = _reshuffled(share, first, total)
    labels = np.repeat([1.0, 0.0], [first, total - first])
    value = float(share(labels[None])[0])
    sizes = (first, total - first)
    if min(sizes) < MIN_DOCUMENTS:
        return EmbeddingDrift(Interval(value, None, None), p, chance, sizes)
    estimates = [_jackknife(distances, labels, side) for side in (1.0, 0.0)]
    return EmbeddingDrift(t_interval(value, estimates), p, chance, sizes)


def document_distances(documents: Sequence[np.ndarray]) -> np.ndarray:
    """Mean Euclidean distance between the chunks of every two documents, float64 [n, n]; a document is unit vectors [chunks, D]."""
    lengths = np.array([len(chunks) for chunks in documents])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    everything = np.concatenate(documents)
    out = np.empty((len(documents),) * 2)
    for number, chunks in enumerate(documents):
        apart = np.sqrt(np.maximum(2 - 2 * chunks @ everything.T, 0)).mean(0, dtype=np.float64)
        out[number] = np.add.reduceat(apart, starts) / lengths
    return out


def energy_share(distances_NN: np.ndarray, labels_RN: np.ndarray) -> np.ndarray:
    """Energy distance between the documents labelled 1 and those labelled 0, over twice their mean distance: [R], a value a labelling.

    The means within each side leave out a document's distance to itself, which makes the estimate unbiased.
    """
    n = labels_RN.sum(1)
    m = labels_RN.shape[1] - n
    own = np.diag(distances_NN)
    to_first = labels_RN @ distances_NN
    first = (to_first * labels_RN).sum(1)
    across = to_first.sum(1) - first
    second = distances_NN.sum() - first - 2 * across
    within = (first - labels_RN @ own) / (n * (n - 1)) + (second - (1 - labels_RN) @ own) / (m * (m - 1))
    between = 2 * across / (n * m)
    return (between - within) / between


def _jackknife(distances: np.ndarray, labels: np.ndarray, side: float) -> Estimate:
    """The share's variance over the documents of one side, by the jackknife (Efron & Tibshirani 1993, ch. 11)."""
    members = np.flatnonzero(labels == side)
    without = []
    for out in members:
        kept = np.delete(np.arange(len(labels)), out)
        without.append(energy_share(distances[np.ix_(kept, kept)], labels[None, kept])[0])
    variance = (len(members) - 1) / len(members) * float(np.square(without - np.mean(without)).sum())
    return Estimate(float(np.mean(without)), variance, len(members) - 1)


def _chunks(dataset: Dataset, docs: np.ndarray) -> list[np.ndarray]:
    """Unit vectors [chunks, D] of sampled chunks, a document an item, of sampled `docs`."""
    rng = np.random.default_rng(0)
    out = []
    for doc in rng.permutation(docs)[:SAMPLED_DOCUMENTS]:
        rows = rng.permutation(np.arange(dataset.starts[doc], dataset.starts[doc + 1]))[:SAMPLED_CHUNKS]
        vectors = np.asarray(dataset.vectors[np.sort(rows)])
        out.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return out


def _reshuffled(statistic: Callable[[np.ndarray], np.ndarray], first: int, total: int) -> tuple[float, float]:
    """The p-value, which counts the observed labelling as one permutation, and the 99.9 % quantile of the permuted statistics."""
    labels = np.repeat([1.0, 0.0], [first, total - first])
    seen = statistic(labels[None])[0]
    found = np.concatenate([statistic(part) for part in _shuffles(labels)])
    # The tolerance allows for sums in another order. An observed NaN is reached by no permutation, hence significant.
    reached = int((found >= seen - 1e-12).sum())
    return (1 + reached) / (len(found) + 1), float(np.quantile(found, 0.999))


def _shuffles(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Random permutations of the labels, up to 1,000 at a time: float64 [R, N]."""
    rng = np.random.default_rng(0)
    for start in range(0, RESHUFFLES, 1000):
        count = min(1000, RESHUFFLES - start)
        yield rng.permuted(np.tile(labels, (count, 1)), axis=1)
