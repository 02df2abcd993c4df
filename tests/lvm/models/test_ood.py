"""Vectors like the training vectors are in distribution, others are not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.models.ood import SHRINKAGE, OutOfDistribution, fit_out_of_distribution
from tests.support.nights import addresses, rot13


@pytest.fixture(scope="module")
def fitted(dataset: Dataset) -> OutOfDistribution:
    return fit_out_of_distribution(dataset)


def share(fitted: OutOfDistribution, vectors: np.ndarray) -> float:
    return float((fitted.distances(torch.from_numpy(np.array(vectors, np.float32))) > fitted.limit).float().mean())


def test_distances_are_those_of_mahalanobis_by_numpy(dataset, fitted):
    train = np.array(dataset.vectors[dataset.rows("train")], np.float64)
    covariance = np.cov(train.T, bias=True)
    covariance += SHRINKAGE * np.diag(covariance).mean() * np.eye(dataset.dim)
    x = np.array(dataset.vectors[dataset.rows("test")][:50], np.float64) - train.mean(0)
    expected = np.sqrt(np.einsum("nd,nd->n", x, np.linalg.solve(covariance, x.T).T) / dataset.dim)
    found = fitted.distances(torch.from_numpy(np.array(dataset.vectors[dataset.rows("test")][:50])))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)


def test_documents_that_were_never_seen_are_in_distribution(dataset, fitted):
    assert share(fitted, dataset.vectors[dataset.rows("test")]) < 0.02


def test_the_limit_is_passed_by_one_validation_chunk_in_a_thousand(dataset, fitted):
    unseen = np.array(dataset.vectors[dataset.rows("val")])
    distances = fitted.distances(torch.from_numpy(unseen)).numpy()
    assert fitted.limit == pytest.approx(np.quantile(distances, 0.999), rel=1e-6)


def test_another_language_and_noise_are_out_of_distribution(fitted, encoder: Encoder):
    strange = [line for text in addresses(3, rot13).values() for line in text.splitlines()][:60]
    noise = np.random.default_rng(0).standard_normal((100, len(fitted.mean)))
    assert share(fitted, encoder.encode(strange)) > 0.5
    assert share(fitted, noise / np.linalg.norm(noise, axis=1, keepdims=True)) == 1.0


def test_norms_are_the_least_and_the_greatest_of_the_training_vectors(dataset, fitted):
    norms = np.linalg.norm(dataset.vectors[dataset.rows("train")], axis=1)
    assert fitted.norms == pytest.approx((norms.min(), norms.max()), abs=1e-5)


def test_it_is_the_same_after_saving(fitted, tmp_path):
    fitted.save(tmp_path / "out_of_distribution.safetensors")
    found = OutOfDistribution.load(tmp_path / "out_of_distribution.safetensors", fitted.mean)
    assert torch.equal(found.mean, fitted.mean) and torch.equal(found.whitener, fitted.whitener)
    assert (found.limit, found.norms) == (fitted.limit, fitted.norms)


@given(st.integers(1, 4), st.integers(1, 4))
def test_each_vector_has_a_distance_of_its_own(batch, length):
    ood = OutOfDistribution(torch.zeros(3), torch.eye(3), 1.0, (0.0, 1.0))
    x = torch.randn(batch, length, 3)
    torch.testing.assert_close(ood.distances(x), x.norm(dim=-1) / 3**0.5)
