"""What several tests of the decode stage share."""

from collections.abc import Iterator

import pytest

from lvm.corpus.dataset import Dataset
from lvm.encode.encoder import Encoder
from tests.lvm.decode.tiny import Learned, by_heart, quickly


@pytest.fixture()
def quick() -> Iterator[pytest.MonkeyPatch]:
    """One thread, and few texts beside those that are learned."""
    with quickly() as patch:
        yield patch


@pytest.fixture(scope="session")
def learned(dataset: Dataset, encoder: Encoder) -> Learned:
    """A decoder that knows 32 sentences by heart; read-only."""
    return by_heart(dataset, encoder)
