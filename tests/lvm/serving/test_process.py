"""`lvm serve` as a process: its clients, reloading, shutdown, logs and page."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from selenium.webdriver.common.by import By

from lvm.atomic_io import publish_folder
from lvm.data.dataset import Dataset
from lvm.serving import AsyncClient, Client, ServingError
from lvm.serving.loaded_model import LoadedModel
from tests.support.browser import Browser
from tests.support.processes import until

pytestmark = pytest.mark.slow
SECONDS = 60


class ServerProcess:
    """A running server; its output is in `log`."""

    def __init__(self, log: Path, *words: object, **environment: str) -> None:
        command = [sys.executable, "-m", "lvm", "serve", "--port", "0", "--device", "cpu", *map(str, words)]
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | environment)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def address(self) -> str:
        """Its address, once it is ready."""
        end = time.monotonic() + SECONDS
        while not (found := re.search(r"Ready at (http://\S+);", self.output())):
            assert self.process.poll() is None and time.monotonic() < end, self.output()
            time.sleep(0.05)
        return found[1]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(SECONDS)


@pytest.fixture(scope="module")
def champion(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    link = tmp_path_factory.mktemp("serving") / "champion"
    publish_folder(model_folder, link, "lstm-tiny-v1")
    return link


@pytest.fixture(scope="module")
def server(champion: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    started = ServerProcess(tmp_path_factory.mktemp("log") / "log", "--model", champion, "--data", dataset.path.parent)
    assert started.address
    yield started
    started.stop()


def test_client_gets_the_predictions_of_the_model(server, model: LoadedModel, contexts):
    with Client(server.address) as client:
        found = client.predict(contexts, "both")
        expected = model.predict(contexts)
        np.testing.assert_allclose(found.decoder, expected.decoder, atol=1e-6)
        np.testing.assert_allclose(found.cosine, expected.cosine, atol=1e-6)
        assert (found.model, found.recipe, found.out_of_distribution.tolist()) == ("lstm-tiny-v1", model.recipe.id, [False] * 6)
        single = client.predict(contexts[0], "cosine")
        assert single.decoder is None and single.cosine.shape == (384,) and not single.out_of_distribution
        texts = client.predict_text(["A first sentence.", "A second."], neighbours=2)
        assert len(texts["steps"][0]["neighbours"]) == 2
        assert client.encode(["One."]).shape == (1, 384)
        assert client.info()["models"][0]["model"] == "lstm-tiny-v1"
        with pytest.raises(ServingError, match=r"422: field 'context_vectors\.0\.0': norm 2") as error:
            client.predict(contexts * 2)
        assert error.value.status == 422


def test_async_client_gets_the_same_in_parallel(server, model: LoadedModel, contexts):
    async def ask() -> list[np.ndarray]:
        async with AsyncClient(server.address) as client:
            found = await asyncio.gather(*(client.predict(contexts[i % 6]) for i in range(60)))
            assert (await client.encode(["One."])).shape == (1, 384)
            return [one.decoder for one in found]

    expected = model.predict(contexts).decoder
    for number, vector in enumerate(asyncio.run(ask())):
        np.testing.assert_allclose(vector, expected[number % 6], atol=1e-6)


def test_new_champion_loses_no_request_and_a_broken_one_is_refused(champion, model_folder, model, contexts, tmp_path):
    started = ServerProcess(tmp_path / "log", "--model", champion, "--set", "serving.watch=null")
    address, stop, answers = started.address, threading.Event(), []

    def ask() -> None:
        expected = model.predict(contexts).decoder
        with Client(address) as client:
            while not stop.is_set():
                found = client.predict(contexts)
                np.testing.assert_allclose(found.decoder, expected, atol=1e-6)
                answers.append(found.model)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    try:
        with Client(address) as client:
            for version in ("lstm-tiny-v2", "lstm-tiny-v3"):
                publish_folder(model_folder, champion, version)
                started.process.send_signal(signal.SIGHUP)
                until(lambda version=version: version in answers)
            copy = shutil.copytree(model_folder, tmp_path / "broken")
            (copy / "model.safetensors").write_bytes(b"no weights")
            publish_folder(copy, champion, "lstm-broken-v4")
            started.process.send_signal(signal.SIGHUP)
            until(lambda: "missing, truncated or altered" in client.info()["refused"].get("champion", ""))
            assert client.predict(contexts).model == "lstm-tiny-v3"
    finally:
        stop.set()
        for thread in asking:
            thread.join()
        publish_folder(model_folder, champion, "lstm-tiny-v1")
        assert started.stop() == 0
    assert set(answers) == {"lstm-tiny-v1", "lstm-tiny-v2", "lstm-tiny-v3"}
    statuses = [json.loads(line)["status"] for line in started.output().splitlines() if '"request"' in line]
    assert set(statuses) == {200} and len(statuses) > len(answers)


def test_it_listens_on_loopback_and_refuses_other_host_names(server):
    assert httpx.get(f"{server.address}/livez").json() == {"status": "alive"}
    assert httpx.get(f"{server.address}/livez", headers={"host": "evil.example"}).status_code == 400
    port = server.address.rpartition(":")[2]
    assert f"127.0.0.1:{port}" in server.address


def test_log_is_json_lines_without_request_text(server):
    with Client(server.address) as client:
        client.predict_text(["A very secret sentence."])
    until(lambda: "/predict_text" in server.output())
    lines = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
    assert all({"time", "level", "message"} <= line.keys() for line in lines) and "secret" not in server.output()


def test_beyond_loopback_the_key_is_required(champion, tmp_path, contexts):
    started = ServerProcess(tmp_path / "log", "--model", champion, "--host", "0.0.0.0", LVM_API_KEY="open sesame")
    address = started.address.replace("0.0.0.0", "127.0.0.1")
    with Client(address) as client, pytest.raises(ServingError, match="401"):
        client.predict(contexts)
    with Client(address, key="open sesame") as client:
        assert client.predict(contexts).model
    assert started.stop() == 0


def test_server_that_cannot_start_ends_with_one_sentence(tmp_path):
    started = ServerProcess(tmp_path / "log", "--model", tmp_path / "none")
    assert started.process.wait(SECONDS) == 2
    (line,) = started.output().splitlines()
    assert re.match("lvm: option --model .*none: has no config.json", line)


# The page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    opened = Browser()
    yield opened
    opened.driver.quit()


def test_page_shows_text_real_chunks_plot_and_model(server, browser: Browser, request: pytest.FixtureRequest, tmp_path: Path):
    browser.open(f"{server.address}/", "What comes next?", "champion: lstm-tiny-v1")
    browser.click(By.ID, "predict")
    browser.reads("Nearest real chunks", "Decoded text", "Where the prediction lies", "Model lstm-tiny-v1")
    browser.count("svg circle", 11)
    browser.count("table tr", 6)
    browser.picture(Path(request.config.getoption("--screenshots") or tmp_path) / "page.png")
    severe = [entry for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE" and "about:blank" not in entry["message"]]
    assert severe == []


def test_page_shows_the_error(server, browser: Browser):
    browser.open(f"{server.address}/", "champion: lstm-tiny-v1")
    browser.driver.execute_script("document.querySelectorAll('textarea')[1].value = 'word '.repeat(600)")
    browser.click(By.ID, "predict")
    browser.reads("field 'context.1': 6", "split it")
