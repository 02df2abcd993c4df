"""The neighbours' baseline: exact search, a softmax over cosines, and an index that is capped."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvm.data.dataset import Dataset
from lvm.models import baselines
from lvm.models.baselines import Baselines, fit_baselines, neighbours
from lvm.models.baselines.fitted import number
from lvm.models.baselines.neighbours import NEIGHBOURS, successors
from tests.support.planted import DIM, planted


@given(st.integers(1, 150), st.integers(0, 2**31), st.sampled_from([0.05, 0.3]))
def test_successors_are_weighted_by_a_softmax_over_the_nearest_keys(size: int, seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    keys, values, query = (rng.normal(size=(n, 5)).astype(np.float32) for n in (size, size, 3))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    found = successors(
        torch.from_numpy(query),
        {"keys": torch.from_numpy(keys), "successors": torch.from_numpy(values), "temperature": number(temperature)},
    )
    for row, one in zip(found.numpy(), query, strict=True):
        cosines = keys @ one / np.linalg.norm(one)
        nearest = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
        weights = np.exp((cosines[nearest] - cosines.max()) / temperature)
        np.testing.assert_allclose(row, weights @ values[nearest] / weights.sum(), atol=2e-4)


def test_the_search_gives_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    index = {"keys": torch.randn(200, 4), "successors": torch.randn(200, 4), "temperature": number(0.1)}
    query = torch.randn(9, 4)
    whole = successors(query, index)
    monkeypatch.setattr(neighbours, "BLOCK_SCORES", 1)
    torch.testing.assert_close(successors(query, index), whole)


def test_the_index_pairs_each_training_context_with_the_chunk_after_it(linear: Dataset, fitted: Baselines) -> None:
    found, rows = fitted.parameters["ridge_knn"], linear.rows("train")
    rows = rows[rows - linear.starts[linear.row_doc[rows]] >= 4]
    assert len(found["keys"]) == len(rows) and found["keys"].dtype == torch.float16
    centred = linear.vectors - fitted.mean.numpy()
    np.testing.assert_allclose(found["successors"].float().numpy(), centred[rows], atol=5e-3)
    decay = float(found["decay"])
    means = sum(decay**lag * centred[rows - 1 - lag] for lag in range(4))
    np.testing.assert_allclose(found["keys"].float().numpy(), means / np.linalg.norm(means, axis=1, keepdims=True), atol=2e-3)


def test_a_larger_corpus_is_sampled_the_same_in_every_fit(linear: Dataset, monkeypatch: pytest.MonkeyPatch, cpu: torch.device) -> None:
    monkeypatch.setattr(neighbours, "INDEX_CONTEXTS", 100)
    first, second = (baselines._fit(linear, 3, 150, ("ridge", "ridge_knn"), cpu).parameters["ridge_knn"] for _ in range(2))
    assert first["keys"].shape == first["successors"].shape == (100, DIM)
    assert torch.equal(first["keys"], second["keys"])


def test_neighbours_that_do_not_help_get_no_weight(tmp_path_factory: pytest.TempPathFactory, cpu: torch.device) -> None:
    rng = np.random.default_rng(0)
    made = planted(tmp_path_factory.mktemp("noise"), [1 + rng.normal(size=(20, DIM)) for _ in range(40)])
    assert fit_baselines(made, 2, 500, cpu).choices()["ridge_knn.weight"] <= 0.1
