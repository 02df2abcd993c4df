"""A load generator: a number of connections, or a number of requests a second, with the time of each response.

It has its own small client, because httpx spends more time on a request than the servers do. HTTP/1.1, keep-alive, bodies
prepared in advance. `closed` (closed loop) sends the next request when a response has come. `opened` (open loop) sends by the
clock and measures from when a request was due, so that a stalled server cannot hide its delay (coordinated omission).
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import uvloop


@dataclass
class Outcome:
    """The responses of a run."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[float] = field(default_factory=list)
    """Seconds to each response with status 200."""

    wrong: int = 0
    """Responses with status 200 that the check rejects."""

    broken: int = 0
    """Connections that ended without a response."""

    @property
    def rate(self) -> float:
        """Responses with status 200 a second."""
        return self.statuses[200] / self.seconds

    def percentile(self, percent: float) -> float:
        """A percentile of the time to a response with status 200, in milliseconds."""
        return float(np.percentile(self.accepted, percent) * 1000) if self.accepted else float("nan")


def request(path: str, body: bytes, kind: str) -> bytes:
    """A request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


Check = Callable[[int, bytes], bool]
"""Whether the response to request `number` is right."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time. It uses callbacks: a task and a future for each request would double its cost."""

    def __init__(self, port: int, raws: list[bytes], outcome: Outcome, check: Check | None, free: "Callable[[Connection], None]") -> None:
        """`free` is called when a response has come, or none will come."""
        self._port, self._raws, self._outcome, self._check, self._free = port, raws, outcome, check, free
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._number, self._due, self._waiting = 0, 0.0, False
        self._received, self._wanted, self._closes = bytearray(), 0, False

    def send(self, number: int, due: float) -> None:
        """Send request `number`; its time is measured from `due`."""
        self._number, self._due, self._wanted, self._waiting = number % len(self._raws), due, 0, True
        self._received.clear()
        if self._transport is None:
            self._opening = asyncio.create_task(self._connect_and_send())
        else:
            self._transport.write(self._raws[self._number])

    async def open(self) -> None:
        """Connect; `OSError` when nothing listens there."""
        self._transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)

    async def _connect_and_send(self) -> None:
        try:
            await self.open()
        except OSError:
            self._fail()
        else:
            assert self._transport is not None
            self._transport.write(self._raws[self._number])

    def data_received(self, data: bytes) -> None:
        """Collect a response, and finish it when it is complete."""
        self._received += data
        if not self._wanted:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower() + b"\r"
            at = head.index(b"content-length:") + 15
            self._wanted = end + 4 + int(head[at : head.index(b"\r", at)])
            self._closes = b"connection: close" in head
        if len(self._received) >= self._wanted and self._waiting:
            self._finish(int(self._received[9:12]))

    def _finish(self, status: int) -> None:
        self._outcome.statuses[status] += 1
        self._waiting = False
        if status == 200:
            self._outcome.accepted.append(time.perf_counter() - self._due)
            if self._check is not None:
                body = bytes(self._received[self._received.find(b"\r\n\r\n") + 4 : self._wanted])
                self._outcome.wrong += not self._check(self._number, body)
        if self._closes:
            self.close()
        self._free(self)

    def _fail(self) -> None:
        self._outcome.broken += 1
        self._waiting = False
        self._free(self)

    def connection_lost(self, error: Exception | None) -> None:
        """A request in flight will have no response."""
        if self._transport is None:  # closed by `close`, and maybe open again
            return
        self._transport = None
        if self._waiting:
            self._fail()

    def close(self) -> None:
        """Close; the next request opens another connection."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None


def closed(port: int, raws: list[bytes], connections: int, seconds: float, check: Check | None = None) -> Outcome:
    """Closed loop: each connection has one request in flight at all times."""

    async def main() -> Outcome:
        outcome, started, done = Outcome(), time.perf_counter(), asyncio.Event()
        numbers, open_ones = count(), set[Connection]()

        def free(connection: Connection) -> None:
            if (now := time.perf_counter()) < started + seconds:
                connection.send(next(numbers), now)
                return
            connection.close()
            open_ones.discard(connection)
            if not open_ones:
                done.set()

        open_ones |= {Connection(port, raws, outcome, check, free) for _ in range(connections)}
        for connection in list(open_ones):
            free(connection)
        await done.wait()
        outcome.seconds = time.perf_counter() - started
        return outcome

    return uvloop.run(main())


def opened(port: int, raws: list[bytes], rate: float, seconds: float, connections: int = 256, check: Check | None = None) -> Outcome:
    """Open loop: `rate` requests a second on free connections. When none is free, requests wait and their time runs."""

    async def main() -> Outcome:
        outcome, number = Outcome(), 0
        ready: deque[Connection] = deque()
        ready += [Connection(port, raws, outcome, check, ready.append) for _ in range(connections)]
        for connection in ready:
            await connection.open()
        started = time.perf_counter()
        while (now := time.perf_counter()) < started + seconds:
            while ready and (due := started + number / rate) <= now:
                ready.popleft().send(number, due)
                number += 1
            await asyncio.sleep(max(0.0005, started + number / rate - time.perf_counter()))
        while len(ready) < connections:
            await asyncio.sleep(0.001)
        outcome.seconds = time.perf_counter() - started
        return outcome

    return uvloop.run(main())
