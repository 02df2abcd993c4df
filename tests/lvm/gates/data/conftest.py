"""Fixtures of the gates on data."""

from functools import partial
from pathlib import Path

import pytest

from lvm.data.dataset import Dataset
from tests.support.poisoned_data import Poison, changed


@pytest.fixture()
def poisoned(dataset: Dataset, tmp_path: Path) -> Poison:
    """Makes a copy of the real dataset with other vectors or columns."""
    return partial(changed, dataset, tmp_path / "poisoned")
