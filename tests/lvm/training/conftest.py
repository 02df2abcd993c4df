"""A run that was killed, for tests of what can be done with it."""

import shutil
from pathlib import Path

import pytest

from lvm.data.dataset import Dataset
from tests.support.trainings import killed_after


@pytest.fixture(scope="session")
def killed_once(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in its second epoch: about 17 steps an epoch, lines at steps 0, 10, 17 (validation) and 20."""
    out = tmp_path_factory.mktemp("killed") / "run"
    killed_after(dataset, out, 4)
    assert (out / "training" / "state.safetensors").exists()
    return out


@pytest.fixture()
def unfinished(killed_once: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with or to damage."""
    return Path(shutil.copytree(killed_once, tmp_path / "run"))
