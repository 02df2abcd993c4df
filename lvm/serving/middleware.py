"""ASGI middleware around every request: admission, API key, size of the body, request id, metrics and the access log.

Whatever can be refused is refused before the body is read.
"""

import hmac
import logging
import time
from uuid import uuid4

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lvm.serving.admission import ADMITTED, GROUPS, REJECTIONS, AdmissionControl
from lvm.serving.metrics import ServingMetrics
from lvm.serving.responses import error_messages

log = logging.getLogger("lvm.serving")

PATHS_WITHOUT_KEY = ("/", "/livez", "/readyz")
"""Answered without a key: the page, which contains no data, and the health checks."""

CLIENT_LEFT_STATUS = 499
"""Logged for a request whose client disconnected before the response, as nginx does."""


class ServingMiddleware:
    """The outermost layer of the application; `max_body` is in bytes."""

    def __init__(self, app: ASGIApp, metrics: ServingMetrics, admission: AdmissionControl, key: str | None, max_body: int) -> None:
        self._app, self._metrics, self._admission = app, metrics, admission
        self._key = f"Bearer {key}".encode() if key else None
        self._max_body, self._too_large = max_body, f"body: more than {max_body} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request or pass it on, and release its admission afterwards."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, state = scope["path"], scope.setdefault("state", {})
        group = GROUPS.get(path)
        if group and not state.pop(ADMITTED, False) and not self._admission.try_admit(group):
            self._admission.record_rejection(path)
            for message in REJECTIONS[group]:
                await send(message)
            return
        try:
            await self._handle(scope, receive, send)
        finally:
            if group:
                self._admission.release(group)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), CLIENT_LEFT_STATUS
        scope["state"]["reason"] = None
        request_id = Headers(scope=scope).get("x-request-id", "")[:64] or uuid4().hex

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode("latin-1"))]
            await send(message)

        try:
            if messages := self._refusal(scope):
                for message in messages:
                    await send_with_id(message)
                return
            await self._app(scope, self._bounded(receive), send_with_id)
        finally:
            self._record(scope, status, time.perf_counter() - started, request_id)

    def _refusal(self, scope: Scope) -> tuple[Message, Message] | None:
        """The response to a request with a wrong key or too large a body; None for any other."""
        headers = Headers(scope=scope)
        if self._key and scope["path"] not in PATHS_WITHOUT_KEY:
            given = headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self._key):
                scope["state"]["reason"] = "unauthorized"
                return error_messages(401, "unauthorized", "give the key as 'Authorization: Bearer KEY'", {"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body:
            scope["state"]["reason"] = "body_too_large"
            return error_messages(413, "body_too_large", self._too_large)
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """`receive`, which fails with 413 once the body exceeds its limit: a chunked body states no length."""
        total = 0

        async def bounded_receive() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._max_body:
                raise HTTPException(413, [{"type": "body_too_large", "loc": ["body"], "msg": self._too_large}])
            return message

        return bounded_receive

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        """Count the request and write its line of the access log. Unknown paths share one label."""
        state, path = scope["state"], scope["path"]
        route = getattr(scope.get("route"), "path", None) or (path if path in GROUPS else "other")
        reason = state["reason"] or ("client_left" if status == CLIENT_LEFT_STATUS else None)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.latency.labels(route).observe(seconds)
        if reason:
            self._metrics.failures.labels(reason).inc()
        values = {"method": scope["method"], "path": route, "status": status, "ms": round(1000 * seconds, 2), "reason": reason}
        log.info("request", extra={**values, "model": state.get("model"), "request_id": request_id})
