"""Requests at a server, as many connections or as many a second as asked for, each answer timed.

A small client of its own: httpx spends longer on a request than the servers do on the answer. HTTP/1.1, kept alive,
bodies prepared before. `closed` sends the next request when an answer has come; `opened` sends by the clock
whatever has come back, and counts from when a request was due, so that a stalled server cannot hide its delay.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import uvloop


@dataclass
class Outcome:
    """What came back."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[float] = field(default_factory=list)
    """Seconds to each answer of status 200."""

    wrong: int = 0
    """Answers of status 200 that are not the model's."""

    broken: int = 0
    """Connections that ended without an answer."""

    @property
    def rate(self) -> float:
        """Answers of status 200 a second."""
        return self.statuses[200] / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds within which so many of the accepted were answered."""
        return float(np.percentile(self.accepted, percent) * 1000) if self.accepted else float("nan")


def request(path: str, body: bytes, kind: str) -> bytes:
    """A request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection, one request at a time. On bare callbacks: asyncio's streams would take a tenth of a request's time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received, self._wanted = bytearray(), 0

    async def ask(self, raw: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; `ConnectionError` when there will be none."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        self._answer, self._wanted = loop.create_future(), 0
        self._received.clear()
        self._transport.write(raw)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """A part of an answer; the whole one ends the wait for it."""
        self._received += data
        if not self._wanted:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower() + b"\r"
            at = head.index(b"content-length:") + 15
            self._wanted = end + 4 + int(head[at : head.index(b"\r", at)])
            self._closes = b"connection: close" in head
        if len(self._received) >= self._wanted and self._answer and not self._answer.done():
            status, start = int(self._received[9:12]), self._received.find(b"\r\n\r\n") + 4
            self._answer.set_result((status, bytes(self._received[start : self._wanted])))
            if self._closes:
                self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits is told."""
        self._transport = None
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None


Check = Callable[[int, bytes], bool]
"""Whether the answer to request `number` is right."""


async def _one(connection: Connection, raws: list[bytes], number: int, due: float, check: Check | None, outcome: Outcome) -> None:
    try:
        status, body = await connection.ask(raws[number % len(raws)])
    except OSError:
        outcome.broken += 1
        connection.close()
        return
    outcome.statuses[status] += 1
    if status == 200:
        outcome.accepted.append(time.perf_counter() - due)
        outcome.wrong += check is not None and not check(number % len(raws), body)


def closed(port: int, raws: list[bytes], connections: int, seconds: float, check: Check | None = None) -> Outcome:
    """So many connections, each with one request on its way at all times."""

    async def main() -> Outcome:
        outcome, started = Outcome(), time.perf_counter()

        async def work(number: int) -> None:
            connection = Connection(port)
            while (now := time.perf_counter()) < started + seconds:
                await _one(connection, raws, number, now, check, outcome)
                number += 1
            connection.close()

        await asyncio.gather(*(work(number) for number in range(connections)))
        outcome.seconds = time.perf_counter() - started
        return outcome

    return uvloop.run(main())


def opened(port: int, raws: list[bytes], rate: float, seconds: float, connections: int = 256, check: Check | None = None) -> Outcome:
    """So many requests a second by the clock, on whichever connection is free; those for which none is free wait, and their time runs."""

    async def main() -> Outcome:
        outcome, started = Outcome(), time.perf_counter()
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(connections):
            free.put_nowait(Connection(port))
        running: set[asyncio.Task[None]] = set()

        async def send(connection: Connection, number: int, due: float) -> None:
            await _one(connection, raws, number, due, check, outcome)
            free.put_nowait(connection)

        number = 0
        while (now := time.perf_counter()) < started + seconds:
            while (due := started + number / rate) <= now:
                task = asyncio.create_task(send(await free.get(), number, due))
                running.add(task)
                task.add_done_callback(running.discard)
                number += 1
            await asyncio.sleep(max(0.0005, started + number / rate - time.perf_counter()))
        await asyncio.gather(*running)
        outcome.seconds = time.perf_counter() - started
        return outcome

    return uvloop.run(main())
