"""What several tests of decoding share."""

from collections.abc import Iterator

import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.evaluate import DecodedWindows, decode_windows
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from tests.support.lookup_decoder import LookupDecoder, opened
from tests.support.tiny_decoder import Learned, by_heart, quickly
from tests.support.trainings import trained


@pytest.fixture()
def quick() -> Iterator[pytest.MonkeyPatch]:
    """One thread, and few texts beside those that are learned."""
    with quickly() as patch:
        yield patch


@pytest.fixture(scope="session")
def learned(dataset: Dataset, encoder: Encoder) -> Learned:
    """A decoder that knows 32 sentences by heart; read-only."""
    return by_heart(dataset, encoder)


@pytest.fixture(scope="session")
def checkpoint(dataset: Dataset) -> Checkpoint:
    """A model trained for a few seconds; read-only."""
    return load_checkpoint(trained(dataset), torch.device("cpu"))


@pytest.fixture(scope="session")
def found(dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder) -> DecodedWindows:
    """Validation windows (with enough documents for intervals) decoded by looking vectors up among real chunks."""
    return decode_windows(dataset, checkpoint, opened(LookupDecoder(dataset, encoder), dataset), "val", context_length=8)
