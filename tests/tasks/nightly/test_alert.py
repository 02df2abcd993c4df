"""A breach reaches someone: on a real Prefect server, the automation of the repository fires and notifies."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.support.processes import until

pytestmark = pytest.mark.slow

BREACH = """
from lvm.errors import GateRefused, InputError
from tasks.nightly.alert import announcing_breach
for error in (InputError("no gate"), GateRefused("skill_drift_cosine: the skill is lost")):
    try:
        with announcing_breach("2026-01-31"):
            raise error
    except type(error):
        pass
"""


@dataclass(frozen=True)
class Server:
    """A Prefect server of its own, and how to run python against it."""

    log: Path
    environment: dict[str, str]

    def python(self, *words: str) -> str:
        """Standard output of a python that talks to the server and ended well."""
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=self.environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that `make up` starts, in an empty home."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "NO_COLOR": "1"}
    environment |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
    command = [sys.executable, "-m", "flows.services.prefect_server", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        until(lambda: _healthy(environment["PREFECT_API_URL"]), 120)
        yield Server(home / "server.log", environment)
    finally:
        process.terminate()
        process.wait(30)


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture()
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook on the loopback, and what was posted to it."""
    posted: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}/hook", posted
        listener.shutdown()


def automations(server: Server) -> list[dict[str, object]]:
    return httpx.post(f"{server.environment['PREFECT_API_URL']}/automations/filter", json={}).json()


def test_breach_is_told_in_the_server_s_log_where_no_webhook_is_given(server: Server) -> None:
    assert "a breach goes to the log of the Prefect server" in server.python("-m", "tasks.nightly.alert")
    server.python("-c", BREACH)
    told = "LVM: breach on 2026-01-31: skill_drift_cosine: the skill is lost"
    until(lambda: told in server.said(), 60)
    assert "no gate" not in server.said(), "bad input is no breach"


def test_breach_is_posted_to_the_webhook_that_is_given(server: Server, webhook: tuple[str, list[dict[str, str]]]) -> None:
    url, posted = webhook
    before = server.python("-m", "tasks.nightly.alert")
    assert server.python("-m", "tasks.nightly.alert", "--webhook", url).split()[1] == before.split()[1], (
        "the automation is brought up to date"
    )
    assert [found["name"] for found in automations(server)] == ["lvm-nightly-breach"]
    server.python("-c", BREACH)
    until(lambda: posted, 60)
    assert posted == [{"text": "LVM: breach on 2026-01-31: skill_drift_cosine: the skill is lost"}]
