"""What stands before every request: key, size, room, and what is counted and logged of it.

It runs before a body is read, so that what is refused costs next to nothing.
"""

import hmac
import logging
import time
from typing import Any
from uuid import uuid4

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lvm.serving.admission import ADMITTED, FULL, GROUPS, Rooms, refusal
from lvm.serving.metrics import Measures

log = logging.getLogger("lvm.serving")


MAX_BODY = 16 * 2**20


OPEN_PATHS = ("/", "/livez", "/readyz")
"""Answered without a key: a page that holds nothing, and whether the server is well."""


TOO_LARGE = f"body: more than {MAX_BODY} bytes"


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, measures: Measures, rooms: Rooms, key: str | None) -> None:
        self._app, self._measures, self._rooms = app, measures, rooms
        self._key = f"Bearer {key}".encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on; count and log either."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, state = scope["path"], scope.setdefault("state", {})
        group = GROUPS.get(path)
        if group and not state.pop(ADMITTED, False) and not self._rooms.enter(group):
            self._rooms.note_turned_away(path)
            for message in FULL[group]:
                await send(message)
            return
        try:
            await self._admitted(scope, receive, send)
        finally:
            if group:
                self._rooms.leave(group)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, path, answer = time.perf_counter(), scope["path"], {"status": 499}
        scope["state"]["reason"] = None
        request_id = Headers(scope=scope).get("x-request-id", "")[:64] or uuid4().hex

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode("latin-1"))]
            await send(message)

        try:
            if refusal := self._refusal(scope):
                await _refuse(sending, *refusal)
                scope["state"]["reason"] = refusal[1]
                return
            await self._app(scope, _counting(receive), sending)
        finally:
            self._enter(scope, path, answer["status"], time.perf_counter() - started, request_id)

    def _refusal(self, scope: Scope) -> tuple[Any, ...] | None:
        headers = Headers(scope=scope)
        if self._key and scope["path"] not in OPEN_PATHS:
            given = headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self._key):
                return 401, "unauthorized", "give the key as 'Authorization: Bearer KEY'", {"www-authenticate": "Bearer"}
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, "body_too_large", TOO_LARGE
        return None

    def _enter(self, scope: Scope, path: str, status: int, seconds: float, request_id: str) -> None:
        route = scope.get("route")
        known = getattr(route, "path", None) or (path if path in GROUPS else "other")
        self._measures.requests.labels(known, str(status)).inc()
        self._measures.seconds.labels(known).observe(seconds)
        state = scope["state"]
        if reason := state["reason"] or ("client_left" if status == 499 else None):
            self._measures.failures.labels(reason).inc()
        log.info(
            "request",
            extra={
                "method": scope["method"],
                "path": known,
                "status": status,
                "ms": round(1000 * seconds, 2),
                "reason": reason,
                "model": state.get("model"),
                "request_id": request_id,
            },
        )


def _counting(receive: Receive) -> Receive:
    """`receive`, until the body is larger than is taken."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise HTTPException(413, [{"type": "body_too_large", "loc": ["body"], "msg": TOO_LARGE}])
        return message

    return counted


async def _refuse(send: Send, status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
    for part in refusal(status, reason, message, headers or {}):
        await send(part)
