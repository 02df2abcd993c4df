"""95 % intervals over documents cover what they claim to cover, however unlike and few the documents are."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lvm.evaluation.intervals import MIN_DOCUMENTS, Interval, difference_interval, document_interval, document_sums, interval_of_sums

DRAWS = 3000
"""Samples whose intervals are counted: 93 in 100 is then found to ± .5 (one standard deviation)."""


def skewed_documents(rng: np.random.Generator, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of documents of very unequal length, whose own means are skewed (exponential) around 0."""
    counts = np.ceil(rng.lognormal(5, 0.8, documents))
    return counts * (rng.exponential(size=documents) - 1) + np.sqrt(counts) * rng.normal(size=documents), counts


def windows(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values with these sums, a document's all alike, and their documents."""
    docs = np.repeat(np.arange(len(counts)), counts.astype(int))
    return (sums / counts)[docs], docs


def clustered(rng: np.random.Generator, documents: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Values around 0 whose documents differ more than their chunks do."""
    docs = np.repeat(np.arange(documents), rng.integers(5, 15, documents))
    return rng.normal(size=documents)[docs] + 0.5 * rng.normal(size=len(docs)), docs


def coverage(intervals: list[Interval]) -> float:
    """Share of the intervals that hold 0."""
    ends = np.array([(one.low, one.high) for one in intervals], float)
    return float(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean())


@pytest.mark.parametrize("documents", [MIN_DOCUMENTS, 8, 13, 30, 100])
def test_few_skewed_unequal_documents_are_covered_at_least_93_times_in_100(documents: int) -> None:
    rng = np.random.default_rng(documents)
    found = coverage([interval_of_sums(*skewed_documents(rng, documents)) for _ in range(DRAWS)])
    assert 0.93 <= found <= 0.975


def test_differences_of_two_sets_of_documents_are_covered_at_least_93_times_in_100() -> None:
    rng = np.random.default_rng(0)
    pairs = ([windows(*skewed_documents(rng, documents)) for documents in (13, 30)] for _ in range(DRAWS // 3))
    assert 0.93 <= coverage([difference_interval(*first, *second) for first, second in pairs]) <= 0.985


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 50)), min_size=MIN_DOCUMENTS, max_size=12))
def test_ends_are_students_with_the_squared_changes_from_leaving_out_each_document(documents: list[tuple[float, int]]) -> None:
    values, docs = windows(*np.array([(mean * count, count) for mean, count in documents]).T)
    found = document_interval(values, docs)
    changes = [values[docs != doc].mean() - values.mean() for doc in range(len(documents))]
    squares = np.array([float(count) ** 2 for _, count in documents])
    freedom = max(1.0, squares.sum() ** 2 / (squares**2).sum() - 1)
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(np.square(changes).sum())
    assert found.value == pytest.approx(values.mean(), abs=1e-9)
    assert (found.low, found.high) == (pytest.approx(found.value - reach, abs=1e-6), pytest.approx(found.value + reach, abs=1e-6))


def test_equally_long_documents_are_students_sample_of_their_means() -> None:
    means = np.random.default_rng(0).normal(size=9)
    found = document_interval(np.repeat(means, 30), np.repeat(np.arange(9), 30))
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert found.high - found.low == pytest.approx((high - low) * np.sqrt(9 / 8))  # type: ignore[operator]


def test_ends_of_a_difference_are_welchs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=8), 3 * rng.normal(size=13) + 1
    found = difference_interval(np.repeat(first, 20), np.repeat(np.arange(8), 20), np.repeat(second, 20), np.repeat(np.arange(13), 20))
    # A variance from leaving documents out is k / (k - 1) times that of the mean, for k documents of one length.
    a, b = (np.sqrt(len(side) / (len(side) - 1)) * (side - side.mean()) for side in (first, second))
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == (pytest.approx(found.value + low), pytest.approx(found.value + high))


def test_clustered_values_get_a_wider_interval_than_independent_ones_would() -> None:
    values, docs = clustered(np.random.default_rng(0))
    by_document = document_interval(values, docs)
    by_chunk = document_interval(values, np.arange(len(values)))
    assert by_document.high - by_document.low > 2 * (by_chunk.high - by_chunk.low)  # type: ignore[operator]


def test_every_chunk_weighs_alike_however_long_its_document() -> None:
    docs = np.concatenate([np.arange(20), np.repeat(np.arange(20, 40), 99)])
    found = document_interval((docs >= 20).astype(np.float32), docs)
    assert found.value == pytest.approx(0.99)
    assert found.low > 0.95  # type: ignore[operator]


def test_one_document_that_outweighs_all_others_leaves_the_mean_uncertain() -> None:
    means = np.random.default_rng(0).normal(size=20)
    alike = interval_of_sums(50 * means, np.full(20, 50.0))
    counts = np.array([5000.0] + [50.0] * 19)
    unlike = interval_of_sums(counts * means, counts)
    assert unlike.high - unlike.low > 5 * (alike.high - alike.low)  # type: ignore[operator]


@pytest.mark.parametrize(("documents", "has_ends"), [(1, False), (MIN_DOCUMENTS - 1, False), (MIN_DOCUMENTS, True)])
def test_too_few_documents_give_a_value_without_ends(documents: int, has_ends: bool) -> None:
    values, docs = clustered(np.random.default_rng(0), documents)
    enough = clustered(np.random.default_rng(1))
    assert document_interval(values, docs).value == pytest.approx(values.mean())
    for found in (document_interval(values, docs), difference_interval(values, docs, *enough), difference_interval(*enough, values, docs)):
        assert ((found.low is None), (found.high is None)) == (not has_ends, not has_ends)


def test_documents_of_one_window_each_are_a_sample_of_windows() -> None:
    values = np.random.default_rng(0).normal(size=MIN_DOCUMENTS)
    found = document_interval(values, np.arange(MIN_DOCUMENTS))
    assert found.low < found.value < found.high  # type: ignore[operator]


def test_document_numbers_and_the_order_of_windows_are_of_no_account() -> None:
    values, docs = clustered(np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(len(docs))
    found, other = document_interval(values, docs), document_interval(values[order], 1000 + 7 * docs[order])
    assert (other.value, other.low, other.high) == pytest.approx((found.value, found.low, found.high), abs=1e-12)


@settings(max_examples=30)
@given(value=st.floats(-1, 1, width=32), sizes=st.lists(st.integers(1, 30), min_size=5, max_size=9))
def test_a_constant_has_an_interval_without_width_around_it(value: float, sizes: list[int]) -> None:
    values, docs = np.full(sum(sizes), value, np.float32), np.repeat(np.arange(len(sizes)), sizes)
    for found in (document_interval(values, docs), difference_interval(values, docs, np.zeros(10), np.repeat(np.arange(5), 2))):
        assert (found.low, found.high) == (pytest.approx(found.value, abs=1e-7), pytest.approx(found.value, abs=1e-7))


def test_a_value_that_is_not_a_number_lies_neither_above_nor_below_zero() -> None:
    values, docs = clustered(np.random.default_rng(0))
    values[3] = np.nan
    for found in (document_interval(values, docs), difference_interval(values, docs, *clustered(np.random.default_rng(1)))):
        assert np.isnan(found.value) and not found.above_zero() and not found.below_zero()


def test_ten_thousand_windows_of_thousands_of_documents_take_milliseconds() -> None:
    rng = np.random.default_rng(0)
    values, docs = rng.normal(size=10_000).astype(np.float32), rng.integers(0, 3000, 10_000)
    document_interval(values, docs)
    took = []
    for _ in range(5):
        started = time.perf_counter()
        document_interval(values, docs)
        took.append(time.perf_counter() - started)
    assert min(took) < 0.05


def test_sums_and_counts_are_ordered_by_document_number() -> None:
    sums, counts = document_sums(np.array([1.0, 2, 4, 8]), np.array([7, 2, 7, 5]))
    assert (sums.tolist(), counts.tolist()) == ([2.0, 8.0, 5.0], [1.0, 1.0, 2.0])


def test_an_interval_is_above_or_below_zero_only_as_a_whole() -> None:
    assert Interval(0.5, 0.1, 0.9).above_zero() and Interval(-0.5, -0.9, -0.1).below_zero()
    for found in (Interval(0.5, -0.1, 0.9), Interval(0.5, None, None), Interval(0.0, 0.0, 0.0)):
        assert not found.above_zero() and not found.below_zero()
    assert not Interval(0.5, 0.0, 0.9).above_zero() and not Interval(-0.5, -0.9, 0.0).below_zero()


def test_an_interval_prints_its_ends_or_why_there_are_none() -> None:
    assert str(Interval(0.0123, -0.001, 0.02)) == "+0.0123 [-0.0010, +0.0200]"
    assert str(Interval(0.0123, None, None)) == "+0.0123 [too few documents]"
