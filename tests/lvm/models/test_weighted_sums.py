"""Weighted sums at every position are those of a context that ends there."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvm.models.weighted_sums import causal_dimension_sums, causal_sums, ewma_weights, lag_weights, last_dimension_sums, last_sums

sizes = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**31))


@given(sizes)
def test_a_sum_weighs_the_latest_chunk_by_the_last_weight(size: tuple[int, int, int]) -> None:
    reach, steps, seed = size
    rng = np.random.default_rng(seed)
    x, weights = rng.normal(size=(2, steps, 3)).astype(np.float32), rng.normal(size=(4, reach)).astype(np.float32)
    padded = np.concatenate([np.zeros((2, reach, 3), np.float32), x], 1)[:, -reach:]
    found = last_sums(torch.from_numpy(x), torch.from_numpy(weights))
    np.testing.assert_allclose(found, np.einsum("kt,btd->bkd", weights, padded), atol=1e-4)
    own = rng.normal(size=(reach, 3)).astype(np.float32)
    found = last_dimension_sums(torch.from_numpy(x), torch.from_numpy(own))
    np.testing.assert_allclose(found, (own * padded).sum(1), atol=1e-4)


@given(sizes)
def test_every_position_has_the_sum_of_a_context_that_ends_there(size: tuple[int, int, int]) -> None:
    reach, steps, seed = size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, steps, 3, generator=generator)
    weights, own = torch.randn(4, reach, generator=generator), torch.randn(reach, 3, generator=generator)
    everywhere, along = causal_sums(x, weights), causal_dimension_sums(x, own)
    for t in range(steps):
        torch.testing.assert_close(everywhere[:, t], last_sums(x[:, : t + 1], weights), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(along[:, t], last_dimension_sums(x[:, : t + 1], own), atol=1e-4, rtol=1e-4)


def test_weights_of_lags_and_means() -> None:
    assert lag_weights(1, 3).tolist() == [0, 0, 1] and lag_weights(3, 3).tolist() == [1, 0, 0]
    np.testing.assert_allclose(ewma_weights(0.5, 3), np.array([1, 2, 4]) / 7, atol=1e-7)
    np.testing.assert_allclose(ewma_weights(0.5, 64).sum(), 1, atol=1e-6)
