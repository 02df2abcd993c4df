"""Datasets with a known law, and the baselines fitted on one of them."""

import numpy as np
import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.models.baselines import Baselines, fit_baselines
from tests.support.planted import DIM, grown, planted

MEAN = np.linspace(-2, 2, DIM)
ROTATION = np.linalg.qr(np.random.default_rng(5).normal(size=(DIM, DIM)))[0]
FIRST, SECOND = 0.6 * ROTATION, 0.3 * np.roll(np.eye(DIM), 1, axis=0)


@pytest.fixture(scope="session")
def law() -> tuple[np.ndarray, np.ndarray]:
    """The matrices FIRST and SECOND of `linear`."""
    return FIRST, SECOND


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """x(t+1) = FIRST x(t) + SECOND x(t-1) + noise, around MEAN."""
    documents = grown(lambda x, rng: FIRST @ x[-1] + SECOND @ x[-2] + 0.5 * rng.normal(size=DIM))
    return planted(tmp_path_factory.mktemp("linear"), [MEAN + document for document in documents])


@pytest.fixture(scope="session")
def fitted(linear: Dataset) -> Baselines:
    return fit_baselines(linear, 4, 1000, torch.device("cpu"))
