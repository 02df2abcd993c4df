"""Turning requests away where they arrive: in a flood most of the time goes into saying no.

uvicorn makes a task and a dictionary of every request before the application sees it, which costs more than
a refusal may when five come for each that is let in. So the protocol itself looks whether there is room, as soon as the
headers are read, and writes the answer at once; the body is skipped by the parser as it comes.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lvm.serving.rooms import FULL, GROUPS, Rooms

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
