"""A request that is not admitted is rejected before its body is read, and its connection stays usable."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lvm.config import ServingConfig
from lvm.serving.admission import PREDICT, AdmissionControl
from lvm.serving.http_protocol import admission_protocol
from lvm.serving.metrics import ServingMetrics
from lvm.serving.middleware import ServingMiddleware

BODY = b"x" * 100_000


class SmallServer:
    """A server that admits one prediction and one text request at a time; each is answered once `may_answer` is set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = ServingMetrics(lambda: 0)
        self.admission = AdmissionControl(ServingConfig(burst=1, text=1), self.metrics)
        self.may_answer = asyncio.Event()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def occupy(self) -> asyncio.StreamReader:
        """Send a prediction that stays in flight until `may_answer` is set; where its response will come."""
        reader, self._occupying = await self.connect()
        self._occupying.write(request())
        await self.until_full()
        return reader

    async def until_full(self) -> None:
        while not self.admission.in_flight[PREDICT]:
            await asyncio.sleep(0.001)

    async def until_empty(self) -> None:
        while self.admission.in_flight[PREDICT]:
            await asyncio.sleep(0.001)


def run(work: Callable[[SmallServer], Awaitable[None]], folder: Path) -> None:
    async def main() -> None:
        server = SmallServer(folder / "socket")
        app = ServingMiddleware(server.app, server.metrics, server.admission, None, 2**20)
        config = uvicorn.Config(app, http=admission_protocol(server.admission), ws="none", lifespan="off", log_config=None)
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(server.path))
        web = uvicorn.Server(config)
        serving = asyncio.create_task(web.serve([bound]))
        while not web.started:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(work(server), 20)
        web.should_exit = True
        await serving

    asyncio.run(main())


def request(path: bytes = b"/predict", *headers: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    lines = [b"POST " + path + b" HTTP/" + version, b"host: here", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    return int(head[9:12]), head, await reader.readexactly(length)


def test_full_server_answers_429_and_the_same_connection_is_served_later(tmp_path):
    async def work(server: SmallServer) -> None:
        first = await server.occupy()
        reader, writer = await server.connect()
        for _ in range(3):
            writer.write(request())
            status, head, body = await response(reader)
            assert (status, b"retry-after: 1" in head, b'"full"' in body) == (429, True, True)
        server.may_answer.set()
        assert (await response(first))[0] == 200
        writer.write(request())
        assert (await response(reader))[0] == 200
        await server.until_empty()
        assert b'lvm_requests_total{path="/predict",status="429"} 3.0' in server.metrics.exposition()

    run(work, tmp_path)


def test_rejection_comes_before_the_body_and_the_next_request_is_read_right(tmp_path):
    async def work(server: SmallServer) -> None:
        await server.occupy()
        reader, writer = await server.connect()
        head, body = request()[: -len(BODY)], BODY
        writer.write(head)
        assert (await response(reader))[0] == 429
        server.may_answer.set()
        await server.until_empty()
        for start in range(0, len(body), 30_000):
            writer.write(body[start : start + 30_000])
            await asyncio.sleep(0.005)
        writer.write(request())
        assert (await response(reader))[0] == 200

    run(work, tmp_path)


def test_pipelined_request_is_answered_after_the_one_before_it(tmp_path):
    async def work(server: SmallServer) -> None:
        reader, writer = await server.connect()
        writer.write(request() + request())
        await server.until_full()
        server.may_answer.set()
        assert [(await response(reader))[0] for _ in range(2)] == [200, 200]
        await server.until_empty()

    run(work, tmp_path)


@pytest.mark.parametrize(("headers", "version"), [([b"connection: close"], b"1.1"), ([], b"1.0")])
def test_connection_is_closed_after_a_rejection_when_the_client_asks_for_it(tmp_path, headers, version):
    async def work(server: SmallServer) -> None:
        await server.occupy()
        reader, writer = await server.connect()
        writer.write(request(b"/predict", *headers, body=b"x", version=version))
        status, head, _ = await response(reader)
        assert (status, b"connection: close" in head, await reader.read()) == (429, True, b"")
        server.may_answer.set()

    run(work, tmp_path)


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /predict?\x01 HTTP/1.1\r\nhost: here\r\n\r\n",
        request(b"/predict", b"upgrade: websocket", b"connection: upgrade"),
        request()[:-10],
        b"POST /predict HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
def test_request_that_fails_early_is_released(tmp_path, raw):
    async def work(server: SmallServer) -> None:
        server.may_answer.set()
        _, writer = await server.connect()
        writer.write(raw)
        await asyncio.sleep(0.05)
        writer.close()
        await server.until_empty()
        reader, writer = await server.connect()
        writer.write(request())
        assert (await response(reader))[0] == 200
        await server.until_empty()

    run(work, tmp_path)


def test_other_paths_and_groups_are_admitted(tmp_path):
    async def work(server: SmallServer) -> None:
        await server.occupy()
        others = [await server.connect() for _ in range(3)]
        for path, (_, writer) in zip((b"/livez", b"/encode", b"/encode"), others, strict=True):
            writer.write(request(path))
            await asyncio.sleep(0.02)
        server.may_answer.set()
        assert [(await response(reader))[0] for reader, _ in others] == [200, 200, 429]

    run(work, tmp_path)
