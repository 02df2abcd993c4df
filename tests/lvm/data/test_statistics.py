"""The moments are those of the training vectors, and are summed once for a dataset."""

import numpy as np
import torch

from lvm.data import statistics as module
from lvm.data.statistics import encoder_statistics, training_mean


def test_moments_are_those_of_the_training_vectors(dataset, cpu, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 1000)
    found = encoder_statistics(dataset, cpu)
    train = dataset.vectors[dataset.rows("train")].astype(np.float64)
    norms = np.linalg.norm(train, axis=1)
    np.testing.assert_allclose(found.mean, train.mean(0), atol=1e-7)
    np.testing.assert_allclose(found.std, train.std(0), atol=1e-7)
    np.testing.assert_allclose(found.unit_std, (train / norms[:, None]).std(0), atol=1e-7)
    np.testing.assert_allclose(found.norm, norms.mean())
    assert {tensor.dtype for tensor in (found.mean, found.std, found.unit_std)} == {torch.float32}


def test_training_mean_is_summed_once_and_the_same_to_the_last_bit(dataset, cpu, monkeypatch):
    summed, sum_moments = [], module._sum_moments
    monkeypatch.setattr(module, "_sum_moments", lambda data: summed.append(data) or sum_moments(data))
    monkeypatch.setattr(module, "_moments", type(module._moments)())
    mean = training_mean(dataset)
    assert mean.dtype == torch.float32 and mean.shape == (dataset.dim,)
    assert torch.equal(encoder_statistics(dataset, cpu).mean, mean) and torch.equal(training_mean(dataset), mean)
    assert summed == [dataset]
    training_mean(dataset.directed(True))
    assert len(summed) == 2, "another object has moments of its own"
