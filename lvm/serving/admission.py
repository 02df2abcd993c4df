"""How many requests are inside at once, and what those get that find no room."""

import asyncio
import logging
import time
from collections import Counter
from typing import Any

import orjson
from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lvm.serving.metrics import Measures

log = logging.getLogger("lvm.serving")


VECTORS, TEXT = "vectors", "text"


GROUPS = {"/predict": VECTORS, "/predict_text": TEXT, "/encode": TEXT, "/decode": TEXT}
"""What shares a bound: the quick ones must not wait for those that write text."""


RETRY_SECONDS = {VECTORS: 1, TEXT: 5}


STEADY = {VECTORS: 5}
"""How many of a group may be inside for long, where that is fewer than at once; measured in bench/serving/LOG.md."""


TELLING_SECONDS = 1.0
"""Between two lines of the log about requests that found no room."""


class Burst:
    """A bucket of `size` tokens that fills again within a second: rooms for whoever comes all at once, not for whoever keeps coming.

    The time inside grows with the number inside (Little's law): those who are let in during a flood are served soon if they are few.
    """

    def __init__(self, size: int) -> None:
        self._size, self._tokens, self._at = size, float(size), time.monotonic()

    def take(self) -> bool:
        """Take a token, if there is one."""
        now = time.monotonic()
        self._tokens, self._at = min(self._size, self._tokens + (now - self._at) * self._size), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Rooms:
    """Counts by group; `bounds` are how many of each may be inside at once, `STEADY` how many for long."""

    def __init__(self, bounds: dict[str, int], measures: Measures) -> None:
        self._bounds = bounds
        self._steady = {group: min(STEADY.get(group, bound), bound) for group, bound in bounds.items()}
        self._bursts = {group: Burst(bound - self._steady[group]) for group, bound in bounds.items()}
        self.inside: Counter[str] = Counter()
        self._counts = {path: (measures.requests.labels(path, "429"), measures.failures.labels("full")) for path in GROUPS}
        self._turned_away, self._told = 0, -TELLING_SECONDS

    def enter(self, group: str) -> bool:
        """Count a request in, or say that there is no room."""
        inside = self.inside[group]
        if inside >= self._bounds[group] or (inside >= self._steady[group] and not self._bursts[group].take()):
            return False
        self.inside[group] = inside + 1
        return True

    def leave(self, group: str) -> None:
        """Count it out again."""
        self.inside[group] -= 1

    def note_turned_away(self, path: str) -> None:
        """Count and log one that found no room."""
        for count in self._counts[path]:
            count.inc()
        self._turned_away += 1
        if (now := time.perf_counter()) - self._told >= TELLING_SECONDS:
            log.warning("turned away", extra={"path": path, "status": 429, "requests": self._turned_away})
            self._turned_away, self._told = 0, now


def refusal(status: int, reason: str, message: str, headers: dict[str, str]) -> tuple[Message, Message]:
    """An answer in the shape of all others that refuse."""
    body = orjson.dumps({"detail": [{"type": reason, "loc": [], "msg": message}]})
    lines = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    head = {"type": "http.response.start", "status": status, "headers": [(k.encode(), v.encode()) for k, v in lines.items()]}
    return head, {"type": "http.response.body", "body": body}


FULL = {
    group: refusal(429, "full", "too many requests at once: try again", {"retry-after": str(seconds)})
    for group, seconds in RETRY_SECONDS.items()
}
"""What whoever finds no room is told, by group."""


ADMITTED = "admitted"
"""In the state of a request that has been counted in."""


class Answered:
    """Stands for the request that has been turned away, for uvicorn to see that it is answered."""

    response_complete = True
    keep_alive = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


class Doorman(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with a look at `rooms` before anything else."""

    rooms: Rooms

    def on_headers_complete(self) -> None:
        """Turn the request away, or count it in and pass it on."""
        path = self.url.partition(b"?")[0].decode("latin-1")
        group = GROUPS.get(path)
        waits = self.cycle is not None and not self.cycle.response_complete  # pipelined behind one that is still being answered
        if group is not None and not waits:
            if not self.rooms.enter(group):
                self._turn_away(path, group)
                return
            self.scope["state"][ADMITTED] = True
            before = self.cycle
            try:
                super().on_headers_complete()
            finally:
                if self.cycle is before:  # nothing came of it: nobody will count it out
                    self.rooms.leave(group)
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """After a refusal the connection may stay open as long as after an answer."""
        if isinstance(self.cycle, Answered):
            self.on_response_complete()
        else:
            super().on_message_complete()

    def _turn_away(self, path: str, group: str) -> None:
        head, body = FULL[group]
        keep = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        headers = [*self.server_state.default_headers, *head["headers"], *([] if keep else [(b"connection", b"close")])]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[head["status"]] + lines + b"\r\n" + body["body"])
        self.cycle = Answered()  # type: ignore[assignment]
        self.rooms.note_turned_away(path)
        if not keep:
            self.transport.close()


def doorman(rooms: Rooms) -> type[Any]:
    """The protocol for a server with these rooms."""
    return type("Doorman", (Doorman,), {"rooms": rooms})
