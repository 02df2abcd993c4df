"""95 % intervals over documents.

Chunks of one document are not independent, so a document is the unit of sampling: an interval says where the mean would lie on other
documents of the same kind. `bench/statistics/coverage.md` shows how often these intervals hold it, and how often those of other methods.

Shapes: N values, each of one window; M of a second set; K documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

MIN_DOCUMENTS = 5
"""Fewer documents have no interval: there the coverage study finds less than the 93 in 100 that it asks for."""


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


@dataclass(frozen=True)
class Estimate:
    """A value with its variance over documents, and the degrees of freedom of that variance."""

    value: float
    variance: float
    freedom: float


def document_interval(values_N: np.ndarray, docs_N: np.ndarray) -> Interval:
    """Mean of `values_N`, over all windows alike, with its interval. For a paired comparison pass differences."""
    return interval_of_sums(*document_sums(values_N, docs_N))


def interval_of_sums(sums_K: np.ndarray, counts_K: np.ndarray) -> Interval:
    """The same for values that are summed by document already: sum and number of the values of each document."""
    value = float(sums_K.sum() / counts_K.sum())
    return Interval(value, None, None) if len(counts_K) < MIN_DOCUMENTS else t_interval(value, [mean_estimate(sums_K, counts_K)])


def difference_interval(first_N: np.ndarray, docs_N: np.ndarray, second_M: np.ndarray, docs_M: np.ndarray) -> Interval:
    """Mean of `first_N` minus mean of `second_M`, from different documents, with its interval."""
    sides = [document_sums(first_N, docs_N), document_sums(second_M, docs_M)]
    first, second = (float(sums.sum() / counts.sum()) for sums, counts in sides)
    if min(len(counts) for _, counts in sides) < MIN_DOCUMENTS:
        return Interval(first - second, None, None)
    return t_interval(first - second, [mean_estimate(*side) for side in sides])


def document_sums(values_N: np.ndarray, docs_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the values of each document, ordered by document number: float64 [K] each."""
    _, code = np.unique(docs_N, return_inverse=True)
    return np.bincount(code, weights=values_N), np.bincount(code).astype(float)


def mean_estimate(sums_K: np.ndarray, counts_K: np.ndarray) -> Estimate:
    """The mean over all windows, as an estimate from two documents or more.

    The variance is the cluster-robust CR3: what leaving out one document after the other changes, squared and summed (Bell & McCaffrey
    2002; MacKinnon, Nielsen & Webb 2023). Its degrees of freedom are Satterthwaite's if documents' own means vary alike: then the long
    documents decide, and there are fewer of them than documents. One is taken for the mean.
    """
    total = counts_K.sum()
    value = sums_K.sum() / total
    without = (sums_K - value * counts_K) / (total - counts_K)
    weights = np.square(counts_K / total)
    freedom = weights.sum() ** 2 / np.square(weights).sum() - 1
    return Estimate(float(value), float(np.square(without).sum()), max(1.0, float(freedom)))


def t_interval(value: float, parts: Sequence[Estimate]) -> Interval:
    """Student's interval around `value`, a sum or difference of independent estimates (Welch 1947)."""
    variances = np.array([part.variance for part in parts])
    spread = np.square(variances) @ [1 / part.freedom for part in parts]
    freedom = variances.sum() ** 2 / spread if spread else 1.0
    reach = float(stdtrit(freedom, 0.975) * np.sqrt(variances.sum()))
    return Interval(value, value - reach, value + reach)
