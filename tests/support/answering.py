"""An endpoint for embeddings that answers as a test says: what httpx would send over the network goes to a function."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from lvm.data import endpoint_client

Answer = Callable[[dict[str, Any]], httpx.Response]
"""From the body of a request to the answer."""


class Endpoint:
    """Takes the place of the network; keeps what was sent and how long was waited."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self.answer: Answer = lambda body: vectors_of(body["input"])
        patch.setattr(httpx.HTTPTransport, "handle_request", lambda transport, request: self._handle(request))
        patch.setattr(endpoint_client.time, "sleep", self.waits.append)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(json.loads(request.read()))


def vector(text: str, dim: int = 24) -> np.ndarray:
    """A unit vector that only depends on the text."""
    made = np.random.default_rng(list(text.encode())).normal(size=dim)
    return made / np.linalg.norm(made)


def vectors_of(texts: list[str], dim: int = 24) -> httpx.Response:
    """The answer of a server that works: in reverse order, as OpenAI's definition allows with its field 'index'."""
    rows = [{"object": "embedding", "index": i, "embedding": vector(text, dim).tolist()} for i, text in enumerate(texts)]
    return httpx.Response(200, json={"object": "list", "model": "small", "data": rows[::-1]})
