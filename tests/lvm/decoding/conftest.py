"""What several tests of the decode stage share."""

from collections.abc import Iterator

import pytest

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from tests.support.tiny_decoder import Learned, by_heart, quickly


@pytest.fixture()
def quick() -> Iterator[pytest.MonkeyPatch]:
    """One thread, and few texts beside those that are learned."""
    with quickly() as patch:
        yield patch


@pytest.fixture(scope="session")
def learned(dataset: Dataset, encoder: Encoder) -> Learned:
    """A decoder that knows 32 sentences by heart; read-only."""
    return by_heart(dataset, encoder)
