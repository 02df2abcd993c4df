"""A mean below 0 is told from chance as seldom wrongly as the level says, and a NaN is never told from nothing."""

import numpy as np
import pytest

from lvm.evaluation.sign_test import FLIPS, below_zero, least_p


def test_few_documents_give_the_share_of_all_patterns_of_signs_with_no_higher_sum() -> None:
    # Of the 16 sums of ±1 ±2 ±3 ±4 only -10 is as low as the first, and only -10 and -8 are as low as the second.
    assert below_zero(np.array([-1.0, -2, -3, -4]), np.arange(4)) == pytest.approx(1 / 16)
    assert below_zero(np.array([1.0, -2, -3, -4]), np.arange(4)) == pytest.approx(2 / 16)
    assert below_zero(np.array([1.0, 2, 3, 4]), np.arange(4)) == 1


def test_documents_are_flipped_and_not_their_chunks() -> None:
    values = -np.ones(1000)
    assert below_zero(values, np.repeat(np.arange(5), 200)) == pytest.approx(2**-5) == least_p(5)


def test_many_documents_give_no_p_value_below_that_of_the_random_patterns() -> None:
    assert below_zero(-np.ones(40), np.arange(40)) == pytest.approx(1 / (FLIPS + 1)) == least_p(40)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_below(bad: float) -> None:
    assert below_zero(np.array([1.0, 2, bad, 3, 4, 5]), np.arange(6)) == 0


def test_chance_alone_is_found_below_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    docs = np.repeat(np.arange(9), rng.integers(5, 40, 9))
    p = np.array([below_zero(0.01 * rng.normal(size=9)[docs] + 0.05 * rng.normal(size=len(docs)), docs) for _ in range(400)])
    for level in (0.05, 0.2, 0.5):
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 400)
