"""A server in this process, around a real model, encoder and dataset."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.neighbours import ChunkLibrary
from lvm.serving.app import make_app
from lvm.serving.loaded_model import Served
from lvm.serving.model_store import Models
from lvm.serving.server import Limits, Server
from lvm.serving.text import TextOut
from tests.support.lookup_decoder import LookupDecoder
from tests.support.trainings import trained

CPU = torch.device("cpu")
Starts = Callable[..., TestClient]


@pytest.fixture(scope="session")
def model(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained model under the name of a version; read-only."""
    out = tmp_path_factory.mktemp("models") / "lstm-tiny-v1"
    return Path(shutil.copytree(trained(dataset), out, ignore=shutil.ignore_patterns("training")))


@pytest.fixture(scope="session")
def served(model: Path) -> Served:
    return Served(model, CPU)


@pytest.fixture(scope="session")
def text_out(dataset: Dataset, encoder: Encoder) -> TextOut:
    """With a decoder that looks vectors up."""
    return TextOut(encoder, LookupDecoder(dataset, encoder), ChunkLibrary(dataset, "all", CPU))


@pytest.fixture(scope="session")
def contexts(dataset: Dataset) -> np.ndarray:
    """[6, 5, D]: real contexts of validation documents."""
    starts = [int(dataset.starts[doc]) for doc in dataset.docs("val")[:3]]
    return np.stack([dataset.vectors[at : at + 5] for start in starts for at in (start, start + 3)]).astype(np.float32)


@pytest.fixture()
def starts(model: Path, text_out: TextOut) -> Iterator[Starts]:
    """Starts servers, which end with the test: `starts(limits, key, text, paths)`."""
    open_clients: list[TestClient] = []

    def start(
        limits: Limits = Limits(watch=None), key: str | None = None, text: TextOut = text_out, paths: list[Path] | None = None
    ) -> TestClient:
        server = Server(lambda measures: Models(paths or [model], CPU, measures), lambda models: text, limits, key)
        client = TestClient(make_app(server), raise_server_exceptions=False)
        client.__enter__()
        open_clients.append(client)
        client.portal.call(server.loaded.wait)  # type: ignore[union-attr]
        assert server.failure is None, server.failure
        return client

    yield start
    for client in open_clients:
        client.__exit__(None, None, None)


@pytest.fixture()
def client(starts: Starts) -> TestClient:
    return starts()
