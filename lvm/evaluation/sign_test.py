"""Is a mean over documents below 0? A test whose false alarms are as rare as its level says, for few documents too."""

import numpy as np
from scipy.stats import permutation_test

from lvm.evaluation.intervals import document_sums

FLIPS = 9_999
"""Random changes of sign; where the documents allow no more than these, all are tried."""


def below_zero(values_N: np.ndarray, docs_N: np.ndarray) -> float:
    """The p-value of the hypothesis that the mean of `values_N` is not below 0, by changes of sign of whole documents.

    If a document's sum is as likely to have either sign, every pattern of signs is equally likely, and the p-value is exact (Good
    2005, ch. 3). With n documents it is at least 2^-n. Values that are not numbers give 0: they must not pass for good ones.
    """
    sums, _ = document_sums(values_N, docs_N)
    if not np.isfinite(sums).all():
        return 0.0
    rng = np.random.default_rng(0)
    found = permutation_test(
        (sums,), np.sum, permutation_type="samples", vectorized=True, n_resamples=FLIPS, batch=1000, alternative="less", rng=rng
    )
    return float(found.pvalue)


def least_p(documents: int) -> float:
    """The smallest p-value of `below_zero` with so many documents."""
    return max(2.0**-documents, 1 / (FLIPS + 1))
