"""What several tests of the inverter's training share."""

from pathlib import Path

import pytest

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter import trainer as training
from lvm.decoding.inverter.train import train_decoder
from tests.support.tiny_decoder import CPU, SHORT, BagEncoder, quickly, tiny


@pytest.fixture(scope="session")
def bags(encoder: Encoder) -> BagEncoder:
    """An encoder that costs nothing."""
    return BagEncoder(encoder)


@pytest.fixture(scope="session")
def whole(dataset: Dataset, bags: BagEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training that nothing disturbed; read-only."""
    out = tmp_path_factory.mktemp("whole") / "decoder"
    with quickly() as patch:
        patch.setattr(training, "LOG_EVERY", 1)
        train_decoder(tiny(*SHORT), dataset, [], bags, out, CPU)
    return out
