"""Whitened queries: the power of the covariance, and the choices on validation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.data.windows import contexts, make_windows, retrieval_ranks, unit
from lvm.models.baselines import Baselines, fit_baselines
from lvm.models.baselines.fitting import fitting_data
from lvm.models.baselines.whitening import FLOOR, POWERS, RIDGE_WEIGHTS, hub_direction, whitener, whitening_covariance
from lvm.models.weighted_sums import last_sums
from tests.support.planted import DIM, planted


@given(st.integers(0, 2**31), st.sampled_from(POWERS))
def test_the_whitener_is_the_negative_power_of_the_covariance(seed: int, power: float) -> None:
    values = np.random.default_rng(seed).uniform(0.1, 3, size=4)
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    found = whitener(torch.from_numpy(axes * values @ axes.T), power)
    np.testing.assert_allclose(found.numpy(), axes * (values / values.mean()) ** -power @ axes.T, atol=1e-4)


def test_dimensions_that_hardly_vary_are_not_blown_up_and_no_variance_is_the_identity() -> None:
    found = whitener(torch.diag(torch.tensor([2.0, 2.0, 0.0, -1e-12], dtype=torch.float64)), 1.0)
    assert found[2, 2] == pytest.approx(1 / FLOOR) and found[3, 3] == pytest.approx(1 / FLOOR)
    assert torch.equal(whitener(torch.zeros(3, 3, dtype=torch.float64), 0.5), torch.eye(3))


def test_the_covariances_are_around_the_training_mean_or_around_each_documents(linear: Dataset) -> None:
    train = [linear.vectors[linear.starts[d] : linear.starts[d + 1]].astype(np.float64) for d in linear.docs("train")]
    everything = np.concatenate(train)
    np.testing.assert_allclose(whitening_covariance(linear, False), np.cov(everything.T, bias=True), atol=1e-6)
    within = np.concatenate([document - document.mean(0) for document in train])
    np.testing.assert_allclose(whitening_covariance(linear, True), within.T @ within / len(within), atol=1e-6)


def test_the_choices_are_the_best_on_validation(linear: Dataset, fitted: Baselines, cpu: torch.device) -> None:
    windows = make_windows(linear, "val", 4, 1000, cpu)
    (context,) = contexts(linear.vectors, windows.targets, 4, cpu, 10_000)
    pool = unit(linear.vectors[windows.pool], cpu)

    def retrieval(query: torch.Tensor) -> float:
        ranks = retrieval_ranks(query, pool, windows.answer, windows.excluded)
        return float((ranks <= 1).mean() + (ranks <= 5).mean() + (1 / ranks).mean())

    found, own = fitted.predict(context), fitted.parameters["whitened_ridge"]
    linear_part, weight = found["ridge"] - fitted.mean, float(own["ridge_weight"])
    mean = last_sums(context - fitted.mean, fitted.parameters["whitened_ewma"]["weights"][None])[:, 0]
    best = retrieval((mean + weight * linear_part) @ own["matrix"])
    moment = whitening_covariance(linear, bool(own["within"]))
    place = POWERS.index(float(own["power"]))
    for power in POWERS[max(place - 1, 0) : place + 2]:
        assert retrieval((mean + weight * linear_part) @ whitener(moment, power)) <= best + 1e-6
    assert weight in RIDGE_WEIGHTS and retrieval(found["whitened_ridge"]) >= best


def test_queries_turn_away_from_the_direction_of_hubs(linear: Dataset, cpu: torch.device) -> None:
    """Of two training chunks the one that is nearer to many queries lies further along the direction."""
    data = fitting_data(linear, 4, 1000, cpu)
    favourite = torch.zeros(DIM)
    favourite[1] = 1
    found = hub_direction(data, lambda context: context[:, -1] + 3 * favourite)
    assert F.cosine_similarity(found, favourite, dim=0) > 0.5


def test_whitening_pays_where_shared_directions_hide_the_next_chunk(tmp_path: Path, cpu: torch.device) -> None:
    """Documents share a loud direction that says nothing about order, and a quiet one that persists."""
    rng = np.random.default_rng(0)

    def document() -> np.ndarray:
        quiet = np.cumsum(rng.normal(size=(30, 6)), 0)
        return np.concatenate([20 * rng.normal(size=(30, 2)), quiet - quiet.mean(0)], 1)

    found = fit_baselines(planted(tmp_path, [document() for _ in range(60)]), 2, 400, cpu)
    assert found.choices()["whitened_ewma.power"] > 0.3
