"""Requests to an endpoint for embeddings: `POST URL/embeddings` as OpenAI defined it.

https://platform.openai.com/docs/api-reference/embeddings/create
"""

import os
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import numpy as np

from lvm.data.vectors import unusable_rows
from lvm.errors import InputError

if TYPE_CHECKING:
    import httpx

KEY = "LVM_ENCODER_KEY"
"""Environment variable: the endpoint's key. It is sent to the endpoint and is in no file, log or message."""

TRIES = 6
"""Tries of a request before it has failed, with at most 31 seconds of waits between them unless the server asks for more."""

LONGEST_WAIT = 60.0
"""Seconds that a server may ask us to wait before another try."""

TIMEOUT, CONNECT_TIMEOUT = 120.0, 10.0
"""Seconds for an answer, and for a connection."""

PASSING = (408, 409, 425, 429)
"""Answers below 500 that may be others later: the server is busy, or limits how much is asked."""


class EndpointClient:
    """Asks one model at one endpoint for vectors. Threads may share it."""

    def __init__(self, name: str, url: str, model: str) -> None:
        """`name` is the encoder's, for messages. Raises `InputError` when `url` is none, or holds a password."""
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise InputError("encoder 'openai' needs httpx: pip install httpx") from error
        parts = _checked_url(name, url)
        self._name, self._model = name, model
        self._url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/embeddings"))
        self._key = os.environ.get(KEY, "")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._http = httpx.Client(headers=headers, timeout=httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT))

    def embed(self, texts: Sequence[str], dim: int | None = None, first: bool = False) -> np.ndarray:
        """Vectors of `texts`, float32 [n, dim], in the order of the texts.

        Busy servers and lost connections are tried again with growing waits; with `first`, a server that does not
        answer at all is not. Raises `InputError` when the endpoint cannot be reached, refuses, or answers anything but one usable
        vector a text.
        """
        response = self._post(list(texts), first)
        if response.status_code in (401, 403):
            raise self._error(f"refused the key (HTTP {response.status_code}): set {KEY} to one that is valid")
        if response.status_code == 404:
            raise self._error(f"has no such address or model (HTTP 404: {self._said(response)}): the URL often ends in /v1")
        if response.status_code != 200:
            raise self._error(f"refused {len(texts)} texts (HTTP {response.status_code}: {self._said(response)})")
        vectors = self._vectors(response, len(texts))
        if dim is not None and vectors.shape[1] != dim:
            raise self._error(f"gave vectors of dimension {vectors.shape[1]} after others of {dim}: its model was changed; start anew")
        return vectors

    def _post(self, texts: list[str], first: bool) -> "httpx.Response":
        """The last answer that the endpoint gave, after all tries."""
        import httpx

        body = {"model": self._model, "input": texts, "encoding_format": "float"}
        for attempt in range(TRIES):
            last = attempt + 1 == TRIES
            try:
                response = self._http.post(self._url, json=body)
            except httpx.RequestError as error:
                if last or first:
                    raise self._error(f"cannot be reached ({type(error).__name__}: {error}): start it, or correct the URL") from error
                asked = None
            else:
                if last or (response.status_code < 500 and response.status_code not in PASSING):
                    return response
                asked = response.headers.get("retry-after")
            time.sleep(_wait(attempt, asked))
        raise AssertionError("the last try returns or raises")

    def _vectors(self, response: "httpx.Response", count: int) -> np.ndarray:
        """The vectors of an answer, float32 [count, dim], in the order of their field 'index'."""
        try:
            rows = response.json()["data"]
            places = [row["index"] for row in rows]
            vectors = [row["embedding"] for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(f"answered something else than vectors ({self._said(response)}): it must be like OpenAI's") from error
        if len(rows) != count:
            raise self._error(f"gave {len(rows)} vectors for {count} texts: it takes fewer at once, or drops some; choose another server")
        if sorted(places, key=str) != sorted(range(count), key=str):
            raise self._error(f"numbered {count} vectors {places[:5]}...: the field 'index' must be 0 to {count - 1}, each once")
        try:
            found = np.array([vectors[place] for place in np.argsort(places)], np.float32)
        except (ValueError, TypeError) as error:
            raise self._error("gave vectors that are of several lengths or not of numbers: check its model") from error
        if found.ndim != 2 or not found.shape[1] or len(unusable_rows(found)):
            raise self._error("gave vectors that are zero, NaN or infinite: check its model and its precision")
        return found

    def _error(self, what: str) -> InputError:
        return InputError(f"encoder {self._name!r}: the endpoint {what}")

    def _said(self, response: "httpx.Response") -> str:
        """The beginning of an answer, on one line and without the key."""
        text = response.text.replace(self._key, "***") if self._key else response.text
        return " ".join(text.split())[:200]


def _checked_url(name: str, url: str) -> SplitResult:
    """The parts of `url`; `InputError` when it is none, or holds what must not be stored."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, or brackets that do not match
        usable = False
    if not usable:
        raise InputError(f"encoder {name!r}: {url!r} is no URL: write openai:http://HOST:PORT/v1#MODEL")
    if parts.username or parts.password:
        raise InputError(f"encoder 'openai': the URL of {parts.hostname} holds a password, which would be stored: set {KEY} instead")
    return parts


def _wait(attempt: int, asked: Any) -> float:
    """Seconds before the next try: what the server asked for, else 1, 2, 4, ..., with a random share so that many do not come together."""
    if asked is not None and str(asked).isdecimal():
        return min(float(asked), LONGEST_WAIT)
    return float(2**attempt) * random.uniform(0.5, 1.0)
