"""A server in this process, around a real model, encoder and dataset."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from lvm.config import ServingConfig
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.neighbours import ChunkLibrary
from lvm.serving.app import make_app
from lvm.serving.loaded_model import LoadedModel
from lvm.serving.model_store import ModelStore
from lvm.serving.server import ModelServer
from lvm.serving.text import TextPipeline
from tests.support.lookup_decoder import LookupDecoder
from tests.support.trainings import trained

CPU = torch.device("cpu")
StartServer = Callable[..., TestClient]


@pytest.fixture(scope="session")
def model_folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained model under the name of a version; read-only."""
    out = tmp_path_factory.mktemp("models") / "lstm-tiny-v1"
    return Path(shutil.copytree(trained(dataset), out, ignore=shutil.ignore_patterns("training")))


@pytest.fixture(scope="session")
def model(model_folder: Path) -> LoadedModel:
    return LoadedModel(model_folder, CPU)


@pytest.fixture(scope="session")
def text_pipeline(dataset: Dataset, encoder: Encoder) -> TextPipeline:
    """With a decoder that looks vectors up."""
    return TextPipeline(encoder, LookupDecoder(dataset, encoder), ChunkLibrary(dataset, "all", CPU))


@pytest.fixture(scope="session")
def contexts(dataset: Dataset) -> np.ndarray:
    """[6, 5, D]: real contexts of validation documents."""
    starts = [int(dataset.starts[doc]) for doc in dataset.docs("val")[:3]]
    return np.stack([dataset.vectors[at : at + 5] for start in starts for at in (start, start + 3)]).astype(np.float32)


@pytest.fixture()
def start_server(model_folder: Path, text_pipeline: TextPipeline) -> Iterator[StartServer]:
    """Starts servers in this process, which end with the test: `start_server(config, key, text, folder)`."""
    open_clients: list[TestClient] = []

    def start(
        config: ServingConfig = ServingConfig(watch=None),
        key: str | None = None,
        text: TextPipeline = text_pipeline,
        folder: Path = model_folder,
    ) -> TestClient:
        server = ModelServer(lambda metrics: ModelStore([folder], CPU, metrics), lambda models: text, config, key)
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
def client(start_server: StartServer) -> TestClient:
    return start_server()
