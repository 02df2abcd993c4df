"""The encoder `openai` and a server that is not ours: LitServe with its endpoint for embeddings, over real connections."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from lvm.config import ChunkerConfig
from lvm.data.dataset import open_dataset
from lvm.data.encoders import load_encoder, minilm_folder
from lvm.data.extract import extract
from lvm.errors import InputError

pytestmark = pytest.mark.slow


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """The address of a server of MiniLM."""
    port, log = unused_port(), tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "tests.support.embedding_server", str(minilm_folder()), str(port)]
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    end = time.monotonic() + 180
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert server.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.3)
    yield f"http://127.0.0.1:{port}/v1"
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_served_model_gives_the_dataset_that_its_folder_gives(url: str, small_corpus: Path, encoder, tmp_path: Path) -> None:
    served = load_encoder(f"openai:{url}#minilm?tokenizer={minilm_folder()}")
    assert (served.recipe.dim, served.recipe.normalize, served.recipe.max_tokens) == (384, True, 256)
    for loaded, folder in ((served, "served"), (encoder, "local")):
        extract([str(small_corpus)], tmp_path / folder, loaded, ChunkerConfig(max_tokens=32), max_docs=4)
    one, other = (open_dataset(tmp_path / folder) for folder in ("served", "local"))
    assert one.texts(np.arange(one.n_rows)) == other.texts(np.arange(other.n_rows)) and one.n_rows > 32
    assert (one.vectors * other.vectors).sum(1).min() > 0.999
    served.recipe.require_same(load_encoder(served.recipe.name).recipe, "dataset")


def test_prompt_reaches_the_server(url: str, encoder) -> None:
    prompted = load_encoder(f"openai:{url}#minilm?tokenizer={minilm_folder()}&prompt=query:+")
    vectors = prompted.encode(["Peace and commerce."]), encoder.encode(["query: Peace and commerce."])
    assert float((vectors[0] * vectors[1]).sum()) > 0.999


def test_wrong_address_and_no_server_are_refused(url: str) -> None:
    for wrong, reason in ((url.removesuffix("/v1"), "HTTP 40[45]"), (f"http://127.0.0.1:{unused_port()}/v1", "ConnectError")):
        with pytest.raises(InputError, match=reason):
            load_encoder(f"openai:{wrong}#minilm?tokenizer={minilm_folder()}")
