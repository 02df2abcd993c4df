"""Have the documents changed, and has the skill? Two tests whose unit is the document.

Chunks of one document are not independent, so whole documents change sides: under the
hypothesis that night and record are documents of one kind, every division of them into two such sets is as
likely as the one that was seen, and the p-value is exact for however few documents (Good 2005, ch. 3). The
interval beside it says how large the change is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import Evaluation
from lvm.evaluation.intervals import Interval, difference_bootstrap, document_sums

DRIFT_METRICS = ("cosine", "recall_at_5")
"""The metrics whose skill is tested for drift, one for each head."""


RESHUFFLES = 9_999


SAMPLED_DOCUMENTS = 400


SAMPLED_CHUNKS = 32


@dataclass(frozen=True)
class SkillDrift:
    """Skill on the night's documents beside that on the champion's own test documents."""

    night: Interval
    own: Interval
    difference: Interval
    p: float
    """Share of reshuffled documents that lose as much or more."""

    least_p: float
    """The smallest that so many documents allow."""


@dataclass(frozen=True)
class EmbeddingDrift:
    """Distance between the night's embeddings and those that the champion was trained on."""

    share: Interval
    """Energy distance over the mean distance of two documents, one of each side; 0 in expectation when nothing changed."""

    p: float
    """Share of reshuffled documents that lie as far apart or farther."""

    chance: float
    """Share that one night in a thousand exceeds by chance."""

    documents: tuple[int, int]
    """Of the night, and of the record."""


def skill_drift(night: Evaluation, own: Evaluation, metric: str) -> SkillDrift:
    """Compare the skills of two evaluations of one model, against the same baselines, on two sets of documents.

    For retrieval both must have pools of one size, or the larger one would look like a loss.
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
    return SkillDrift(night.skill(metric), own.skill(metric), difference_bootstrap(values[0], docs[0], values[1], docs[1]), p, least)


def embedding_drift(night: Dataset, record: Dataset) -> EmbeddingDrift:
    """Energy distance (Székely & Rizzo 2013) between the chunks of the night and those of the record's training documents.

    It is 0 exactly for equal distributions. The distance of two documents is the mean distance of
    their chunks at unit length, so that a short document is no farther away than a long one; a document is never compared
    with itself. At most 400 documents a side and 32 chunks a document, drawn with a fixed seed.
    """
    sides = [_chunks(night, night.docs("all")), _chunks(record, record.docs("train"))]
    first, total = len(sides[0]), len(sides[0]) + len(sides[1])
    distances = document_distances([*sides[0], *sides[1]])

    def share(labels: np.ndarray) -> np.ndarray:
        return energy_share(distances, labels)

    p, chance = _reshuffled(share, first, total)
    labels = np.repeat([1.0, 0.0], [first, total - first])
    value = float(share(labels[None])[0])
    error = _jackknife_error(distances, labels)
    return EmbeddingDrift(Interval(value, value - 1.96 * error, value + 1.96 * error), p, chance, (first, total - first))


def document_distances(documents: Sequence[np.ndarray]) -> np.ndarray:
    """Mean Euclidean distance between the chunks of each two documents: float64 [n, n]; each document is unit vectors [chunks, D]."""
    lengths = np.array([len(chunks) for chunks in documents])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    everything = np.concatenate(documents)
    out = np.empty((len(documents),) * 2)
    for number, chunks in enumerate(documents):
        apart = np.sqrt(np.maximum(2 - 2 * chunks @ everything.T, 0)).mean(0, dtype=np.float64)
        out[number] = np.add.reduceat(apart, starts) / lengths
    return out


def energy_share(distances_NN: np.ndarray, labels_RN: np.ndarray) -> np.ndarray:
    """Energy distance of the documents labelled 1 from those labelled 0, over twice their mean distance: [R].

    Both means within a side leave out a document's distance to itself, which makes the estimate unbiased.
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


def _jackknife_error(distances: np.ndarray, labels: np.ndarray) -> float:
    """Standard error of the share, leaving out each document in turn, side by side (Efron & Tibshirani 1993, ch. 11)."""
    variance = 0.0
    for side in (1.0, 0.0):
        members = np.flatnonzero(labels == side)
        if len(members) < 3:
            return math.inf
        without = []
        for out in members:
            kept = np.delete(np.arange(len(labels)), out)
            without.append(energy_share(distances[np.ix_(kept, kept)], labels[None, kept])[0])
        variance += (len(members) - 1) / len(members) * float(np.square(without - np.mean(without)).sum())
    return math.sqrt(variance)


def _chunks(dataset: Dataset, docs: np.ndarray) -> list[np.ndarray]:
    """Unit vectors of a sample of the chunks of a sample of `docs`, a document each: float32 [chunks, D]."""
    rng = np.random.default_rng(0)
    out = []
    for doc in rng.permutation(docs)[:SAMPLED_DOCUMENTS]:
        rows = rng.permutation(np.arange(dataset.starts[doc], dataset.starts[doc + 1]))[:SAMPLED_CHUNKS]
        vectors = np.asarray(dataset.vectors[np.sort(rows)])
        out.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return out


def _reshuffled(statistic: Callable[[np.ndarray], np.ndarray], first: int, total: int) -> tuple[float, float]:
    """Share of reshuffles whose statistic reaches the one that was seen (which counts itself), and their 99.9 % quantile."""
    labels = np.repeat([1.0, 0.0], [first, total - first])
    seen = statistic(labels[None])[0]
    found = np.concatenate([statistic(part) for part in _shuffles(labels)])
    # The tolerance is for sums in another order. A NaN that was seen is reached by nothing, hence significant.
    reached = int((found >= seen - 1e-12).sum())
    return (1 + reached) / (len(found) + 1), float(np.quantile(found, 0.999))


def _shuffles(labels: np.ndarray) -> Iterator[np.ndarray]:
    """The labels in random orders, float64 [<= 1000, N] at a time."""
    rng = np.random.default_rng(0)
    for start in range(0, RESHUFFLES, 1000):
        count = min(1000, RESHUFFLES - start)
        yield rng.permuted(np.tile(labels, (count, 1)), axis=1)
