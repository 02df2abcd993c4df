"""What stands before every request: key, size, room, and what is counted and logged of it.

It runs before a body is read, so that what is refused costs next to nothing.
"""

import hmac
import logging
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import orjson
from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lvm.serving.measures import Measures

log = logging.getLogger("lvm.serving")

MAX_BODY = 16 * 2**20
OPEN_PATHS = ("/", "/livez", "/readyz")
"""Answered without a key: a page that holds nothing, and whether the server is well."""

VECTORS, TEXT = "vectors", "text"
GROUPS = {"/predict": VECTORS, "/predict_text": TEXT, "/encode": TEXT, "/decode": TEXT}
"""What shares a bound: the quick ones must not wait for those that write text."""

RETRY_SECONDS = {VECTORS: 1, TEXT: 5}
TELLING_SECONDS = 1.0
"""Between two lines of the log about requests that found no room."""


TOO_LARGE = f"body: more than {MAX_BODY} bytes"


class Guard:
    """ASGI middleware; `bounds` are how many requests of each group may be inside at once."""

    def __init__(self, app: ASGIApp, measures: Measures, bounds: dict[str, int], key: str | None) -> None:
        self._app, self._measures, self._bounds = app, measures, bounds
        self._key = f"Bearer {key}".encode() if key else None
        self.inside: Counter[str] = Counter()
        self._full = {path: (measures.requests.labels(path, "429"), measures.failures.labels("full")) for path in GROUPS}
        self._turned_away, self._told = 0, -TELLING_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on; count and log either."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, path, answer = time.perf_counter(), scope["path"], {"status": 499}
        group = GROUPS.get(path)
        if group and self.inside[group] >= self._bounds[group]:
            await self._turn_away(send, path, group)
            return
        scope.setdefault("state", {})["reason"] = None
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
            if group:
                self.inside[group] += 1
            try:
                await self._app(scope, _counting(receive), sending)
            finally:
                if group:
                    self.inside[group] -= 1
        finally:
            self._enter(scope, path, answer["status"], time.perf_counter() - started, request_id)

    async def _turn_away(self, send: Send, path: str, group: str) -> None:
        """Answer 429 at the least cost: in a flood most of the time goes into this."""
        for count in self._full[path]:
            count.inc()
        self._turned_away += 1
        for message in FULL[group]:
            await send(message)
        if (now := time.perf_counter()) - self._told >= TELLING_SECONDS:
            log.warning("turned away", extra={"path": path, "status": 429, "requests": self._turned_away})
            self._turned_away, self._told = 0, now

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
    for part in _messages(status, reason, message, headers or {}):
        await send(part)


def _messages(status: int, reason: str, message: str, headers: dict[str, str]) -> tuple[Message, Message]:
    """An answer in the shape of all others that refuse."""
    body = orjson.dumps({"detail": [{"type": reason, "loc": [], "msg": message}]})
    lines = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    head = {"type": "http.response.start", "status": status, "headers": [(k.encode(), v.encode()) for k, v in lines.items()]}
    return head, {"type": "http.response.body", "body": body}


FULL = {
    group: _messages(429, "full", "too many requests at once: try again", {"retry-after": str(seconds)})
    for group, seconds in RETRY_SECONDS.items()
}
