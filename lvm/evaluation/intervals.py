"""95 % intervals that resample documents.

Shapes: N values, each of one window; M of a second set.
"""

from dataclasses import dataclass

import numpy as np

MIN_DOCUMENTS = 5
"""Fewer documents have no interval: a percentile interval of theirs would be far too narrow."""


RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; the bounds are None when there are too few documents for one."""

    value: float
    low: float | None
    high: float | None

    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0; False when there is none."""
        return self.low is not None and self.low > 0

    def below_zero(self) -> bool:
        """Whether the whole interval lies below 0; False when there is none."""
        return self.high is not None and self.high < 0

    def __str__(self) -> str:
        bounds = "too few documents" if self.low is None else f"{self.low:+.4f}, {self.high:+.4f}"
        return f"{self.value:+.4f} [{bounds}]"


def document_interval(values_N: np.ndarray, docs_N: np.ndarray, seed: int = 0) -> Interval:
    """Mean of `values_N` with a percentile bootstrap interval that resamples whole documents.

    Chunks of one document are not independent, so documents are drawn (Efron & Tibshirani 1993, ch. 8). Each
    draw's mean weights all chunks equally. For a paired comparison pass differences.
    """
    return interval_of_sums(*document_sums(values_N, docs_N), seed)


def interval_of_sums(sums: np.ndarray, counts: np.ndarray, seed: int = 0) -> Interval:
    """The same for values that are summed by document already: sum and number of the values of each document."""
    value = float(sums.sum() / counts.sum())
    return _percentiles(value, None if len(counts) < MIN_DOCUMENTS else _resampled_means(sums, counts, seed))


def difference_interval(first_N: np.ndarray, docs_N: np.ndarray, second_M: np.ndarray, docs_M: np.ndarray) -> Interval:
    """Mean of `first_N` minus mean of `second_M`, from different documents; each set is resampled on its own (ibid., ch. 8.3)."""
    sides = [document_sums(first_N, docs_N), document_sums(second_M, docs_M)]
    value = float(first_N.mean(dtype=np.float64) - second_M.mean(dtype=np.float64))
    if min(len(counts) for _, counts in sides) < MIN_DOCUMENTS:
        return Interval(value, None, None)
    return _percentiles(value, np.subtract(*(_resampled_means(*side, seed) for seed, side in enumerate(sides))))


def document_sums(values_N: np.ndarray, docs_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the values of each document, ordered by document number: float64 [n_docs] each."""
    _, code = np.unique(docs_N, return_inverse=True)
    return np.bincount(code, weights=values_N), np.bincount(code).astype(float)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Means over resampled documents, float64 [RESAMPLES]."""
    rng, n = np.random.default_rng(seed), len(counts)
    means = []
    for start in range(0, RESAMPLES, 250):  # in parts: [resamples, documents] may be large
        draws = rng.multinomial(n, np.full(n, 1 / n), size=min(250, RESAMPLES - start)).astype(float)
        means.append((draws @ sums) / (draws @ counts))
    return np.concatenate(means)


def _percentiles(value: float, resampled: np.ndarray | None) -> Interval:
    """The percentile interval of resampled means; none without them."""
    if resampled is None:
        return Interval(value, None, None)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(value, float(low), float(high))
