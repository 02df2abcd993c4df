"""The HTTP/1.1 protocol of the server: uvicorn's own, with admission control before anything else.

A request that is not admitted is answered as soon as its headers are read, before uvicorn creates a scope and a task for it.
Under overload this rejects about twice as many requests a second as middleware could (bench/serving/LOG.md).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lvm.serving.admission import ADMITTED, GROUPS, REJECTIONS, AdmissionControl


class RejectedCycle:
    """Takes the place of uvicorn's request cycle after a rejection, so that uvicorn sees a completed response."""

    response_complete = True
    keep_alive = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


class AdmissionProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which asks `admission` about each request."""

    admission: AdmissionControl

    def on_headers_complete(self) -> None:
        """Reject the request, or admit it and let uvicorn go on."""
        path = self.url.partition(b"?")[0].decode("latin-1")
        group = GROUPS.get(path)
        pipelined = self.cycle is not None and not self.cycle.response_complete
        if group is None or pipelined:  # a rejection must not overtake the response before it: the middleware decides later
            super().on_headers_complete()
            return
        if not self.admission.try_admit(group):
            self._reject(path, group)
            return
        self.scope["state"][ADMITTED] = True
        before = self.cycle
        try:
            super().on_headers_complete()
        finally:
            if self.cycle is before:  # uvicorn refused the request itself, so the middleware will never release it
                self.admission.release(group)

    def on_message_complete(self) -> None:
        """Keep the connection open after a rejection, as after any other response."""
        if isinstance(self.cycle, RejectedCycle):
            self.on_response_complete()
        else:
            super().on_message_complete()

    def _reject(self, path: str, group: str) -> None:
        start, body = REJECTIONS[group]
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        headers = [*self.server_state.default_headers, *start["headers"], *([] if keep_alive else [(b"connection", b"close")])]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[start["status"]] + lines + b"\r\n" + body["body"])
        self.cycle = RejectedCycle()  # type: ignore[assignment]
        self.admission.record_rejection(path)
        if not keep_alive:
            self.transport.close()


def admission_protocol(admission: AdmissionControl) -> type[Any]:
    """The protocol class for uvicorn, bound to `admission`."""
    return type("BoundAdmissionProtocol", (AdmissionProtocol,), {"admission": admission})
