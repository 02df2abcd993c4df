"""A request that finds no room is turned away where it arrives, and the connection is as good as before."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lvm.serving.admission import TEXT, VECTORS, Rooms, doorman
from lvm.serving.metrics import Measures
from lvm.serving.middleware import Guard

BODY = b"x" * 100_000


class Place:
    """A server with one room for predictions, in which whoever is let in waits for `may_leave`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.measures = Measures(lambda: 0)
        self.rooms = Rooms({VECTORS: 1, TEXT: 1}, self.measures)
        self.may_leave = asyncio.Event()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await self.may_leave.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def full(self) -> None:
        while not self.rooms.inside[VECTORS]:
            await asyncio.sleep(0.001)

    async def empty(self) -> None:
        while self.rooms.inside[VECTORS]:
            await asyncio.sleep(0.001)


def run(work: Callable[[Place], Awaitable[None]], folder: Path) -> None:
    async def main() -> None:
        place = Place(folder / "socket")
        guarded = Guard(place.app, place.measures, place.rooms, None)
        config = uvicorn.Config(guarded, http=doorman(place.rooms), ws="none", lifespan="off", log_config=None)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(place.path))
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(work(place), 20)
        server.should_exit = True
        await serving

    asyncio.run(main())


def ask(path: bytes = b"/predict", *headers: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    lines = [b"POST " + path + b" HTTP/" + version, b"host: here", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    return int(head[9:12]), head, await reader.readexactly(length)


def test_full_server_answers_429_and_the_same_connection_is_served_later(tmp_path):
    async def work(place: Place) -> None:
        first_in, first_out = await place.connect()
        first_out.write(ask())
        await place.full()
        reader, writer = await place.connect()
        for _ in range(3):
            writer.write(ask())
            status, head, body = await answer(reader)
            assert (status, b"retry-after: 1" in head, b'"full"' in body) == (429, True, True)
        place.may_leave.set()
        assert (await answer(first_in))[0] == 200
        writer.write(ask())
        assert (await answer(reader))[0] == 200
        await place.empty()
        assert b'lvm_requests_total{path="/predict",status="429"} 3.0' in place.measures.text()

    run(work, tmp_path)


def test_answer_comes_before_the_body_and_what_follows_it_is_read_right(tmp_path):
    async def work(place: Place) -> None:
        _, first_out = await place.connect()
        first_out.write(ask())
        await place.full()
        reader, writer = await place.connect()
        head, body = ask()[: -len(BODY)], BODY
        writer.write(head)
        assert (await answer(reader))[0] == 429
        place.may_leave.set()
        await place.empty()
        for start in range(0, len(body), 30_000):
            writer.write(body[start : start + 30_000])
            await asyncio.sleep(0.005)
        writer.write(ask())
        assert (await answer(reader))[0] == 200

    run(work, tmp_path)


def test_pipelined_request_waits_for_the_answer_before_it(tmp_path):
    async def work(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(ask() + ask())
        await place.full()
        place.may_leave.set()
        assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]
        await place.empty()

    run(work, tmp_path)


@pytest.mark.parametrize(("headers", "version"), [([b"connection: close"], b"1.1"), ([], b"1.0")])
def test_whoever_wants_to_leave_after_the_refusal_is_let_go(tmp_path, headers, version):
    async def work(place: Place) -> None:
        _, first_out = await place.connect()
        first_out.write(ask())
        await place.full()
        reader, writer = await place.connect()
        writer.write(ask(b"/predict", *headers, body=b"x", version=version))
        status, head, _ = await answer(reader)
        assert (status, b"connection: close" in head, await reader.read()) == (429, True, b"")
        place.may_leave.set()

    run(work, tmp_path)


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /predict?\x01 HTTP/1.1\r\nhost: here\r\n\r\n",
        ask(b"/predict", b"upgrade: websocket", b"connection: upgrade"),
        ask()[:-10],
        b"POST /predict HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
def test_request_that_comes_to_nothing_leaves_no_room_taken(tmp_path, raw):
    async def work(place: Place) -> None:
        place.may_leave.set()
        _, writer = await place.connect()
        writer.write(raw)
        await asyncio.sleep(0.05)
        writer.close()
        await place.empty()
        reader, writer = await place.connect()
        writer.write(ask())
        assert (await answer(reader))[0] == 200
        await place.empty()

    run(work, tmp_path)


def test_other_paths_and_groups_are_not_turned_away(tmp_path):
    async def work(place: Place) -> None:
        _, first_out = await place.connect()
        first_out.write(ask())
        await place.full()
        others = [await place.connect() for _ in range(3)]
        for path, (_, writer) in zip((b"/livez", b"/encode", b"/encode"), others, strict=True):
            writer.write(ask(path))
            await asyncio.sleep(0.02)
        place.may_leave.set()
        assert [(await answer(reader))[0] for reader, _ in others] == [200, 200, 429]

    run(work, tmp_path)
