"""Metrics equal their definitions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

from lvm.data.windows import retrieval_ranks
from lvm.evaluation.metrics import sigma_ratio, spread

COMMON = settings(max_examples=100, deadline=None)


# Retrieval


def brute_ranks(queries: np.ndarray, pool: np.ndarray, answers: np.ndarray, excluded: np.ndarray) -> list[int]:
    ranks = []
    for query, answer, (low, high) in zip(queries, answers, excluded, strict=True):
        own = float(query @ pool[answer])
        others = [i for i in range(len(pool)) if i != answer and not low <= i < high]
        ranks.append(1 + sum(float(query @ pool[i]) >= own for i in others))
    return ranks


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries, pool, answers and excluded ranges; small whole numbers, so that ties are many and exact."""
    n, size = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    numbers = st.integers(-2, 2).map(float)
    queries = draw(arrays(np.float32, (n, 3), elements=numbers))
    pool = draw(arrays(np.float32, (size, 3), elements=numbers))
    answers = draw(arrays(np.int64, n, elements=st.integers(0, size - 1)))
    ends = draw(arrays(np.int64, (n, 2), elements=st.integers(0, size)))
    return queries, pool, answers, np.sort(ends, 1)


@COMMON
@given(questions())
def test_ranks_equal_counting_by_hand_with_exclusions_and_ties(case: tuple) -> None:
    queries, pool, answers, excluded = case
    found = retrieval_ranks(torch.from_numpy(queries), torch.from_numpy(pool), answers, excluded)
    assert found.tolist() == brute_ranks(queries, pool, answers, excluded)


def test_ranks_are_the_same_across_the_blocks_in_which_they_are_computed() -> None:
    rng = np.random.default_rng(0)
    queries, pool = rng.integers(-3, 4, (2500, 4)).astype(np.float32), rng.integers(-3, 4, (30, 4)).astype(np.float32)
    answers = rng.integers(0, 30, 2500)
    excluded = np.sort(rng.integers(0, 31, (2500, 2)), 1)
    found = retrieval_ranks(torch.from_numpy(queries), torch.from_numpy(pool), answers, excluded)
    assert found.tolist() == brute_ranks(queries, pool, answers, excluded)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_query_without_information_ranks_last(value: float) -> None:
    pool = F.normalize(torch.randn(20, 4), dim=-1)
    ranks = retrieval_ranks(torch.full((3, 4), value), pool, np.array([0, 7, 19]), np.zeros((3, 2), np.int64))
    assert ranks.tolist() == [20, 20, 20]


def test_an_oracle_ranks_first_and_its_opposite_last_at_any_scale() -> None:
    pool = torch.eye(6)
    answers, nothing = np.arange(6), np.zeros((6, 2), np.int64)
    assert retrieval_ranks(17 * pool, pool, answers, nothing).tolist() == [1] * 6
    assert retrieval_ranks(-0.1 * pool, pool, answers, nothing).tolist() == [6] * 6


# Spread


@COMMON
@given(arrays(np.float64, st.tuples(st.integers(2, 9), st.integers(1, 5)), elements=st.integers(-3, 3).map(float)))
def test_pairwise_cosine_is_the_mean_over_all_pairs(vectors: np.ndarray) -> None:
    norms = np.linalg.norm(vectors, axis=1)
    n = len(vectors)
    pairs = [
        float(vectors[i] @ vectors[j]) / (norms[i] * norms[j]) if norms[i] * norms[j] else 0.0 for i in range(n) for j in range(n) if i != j
    ]
    assert spread(torch.from_numpy(vectors)).pairwise_cosine == pytest.approx(np.mean(pairs), abs=1e-9)


def test_effective_rank_is_the_dimension_when_isotropic_and_one_on_a_line() -> None:
    vectors = torch.randn(4000, 12, generator=torch.Generator().manual_seed(0))
    assert 11.9 < spread(vectors).effective_rank <= 12
    assert spread(vectors[:, :1] * torch.randn(12)).effective_rank == pytest.approx(1, abs=1e-3)


def test_effective_rank_counts_the_directions_in_use() -> None:
    vectors = torch.zeros(4000, 12)
    vectors[:, :3] = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert spread(vectors @ torch.linalg.qr(torch.randn(12, 12))[0]).effective_rank == pytest.approx(3, abs=0.02)


def test_effective_rank_ignores_what_all_vectors_share() -> None:
    vectors = torch.randn(4000, 12, generator=torch.Generator().manual_seed(0))
    vectors[:, 0] = 8
    assert 10.5 < spread(vectors).effective_rank < 12


def test_effective_rank_weighs_directions_by_their_singular_values() -> None:
    axes = torch.eye(2).repeat_interleave(torch.tensor([9, 1]), 0)
    shares = np.array([3, 1]) / 4  # nine times the variance is three times the singular value
    assert spread(torch.cat([axes, -axes])).effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-9)


def test_collapse_to_one_vector_shows_in_every_number() -> None:
    found = spread(torch.randn(12, generator=torch.Generator().manual_seed(0)).expand(500, 12))
    assert found.pairwise_cosine == pytest.approx(1)
    assert found.effective_rank < 1.2
    assert found.std.max() < 1e-6


def test_direction_metrics_ignore_length_and_raw_ones_do_not() -> None:
    vectors = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) + 1
    stretched = spread(vectors * torch.linspace(0.1, 9, 300)[:, None])
    plain = spread(vectors)
    assert stretched.pairwise_cosine == pytest.approx(plain.pairwise_cosine, abs=1e-6)
    assert stretched.effective_rank == pytest.approx(plain.effective_rank, abs=1e-6)
    np.testing.assert_allclose(stretched.std, plain.std, atol=1e-6)
    unit = F.normalize(vectors, dim=-1)
    np.testing.assert_allclose(plain.mean, unit.mean(0), atol=1e-6)
    np.testing.assert_allclose(plain.std, unit.std(0), atol=1e-6)
    np.testing.assert_allclose(plain.raw_mean, vectors.mean(0), atol=1e-6)
    np.testing.assert_allclose(plain.raw_std, vectors.std(0), atol=1e-6)
    assert plain.norm == pytest.approx(float(vectors.norm(dim=-1).mean()), rel=1e-6)
    assert stretched.norm != pytest.approx(plain.norm, rel=0.1)


def test_the_sigma_ratio_is_one_against_itself_and_masks_dead_dimensions() -> None:
    found = spread(torch.randn(100, 4))
    assert sigma_ratio(found, found) == pytest.approx(1)
    target = replace(found, std=np.array([1.0, 2.0, 1.0, 0.01]))
    predicted = replace(found, std=np.array([0.5, 1.0, 0.2, 9.0]))
    assert sigma_ratio(predicted, target) == pytest.approx((0.5 + 0.5 + 0.2) / 3)
    assert sigma_ratio(predicted, replace(target, std=np.array([1.0, 2.0, 1.0, 1.0]))) == pytest.approx((0.5 + 0.5 + 0.2 + 9.0) / 4)
