"""Typed clients of the server, synchronous and asynchronous. Vectors are sent as .npy: smaller than JSON, and exact.

    with Client("http://127.0.0.1:8766") as client:
        prediction = client.predict(contexts)       # float32 [T, D] or [B, T, D]
        print(client.predict_text(["First sentence.", "Second."], neighbours=3)["steps"][0]["neighbours"])

When the server has too many requests (429), the client waits for as long as the response says and tries again, a few times.
"""

import asyncio
import io
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import httpx
import numpy as np

OutputType = Literal["decoder", "cosine", "both"]
ATTEMPTS = 5


class ServingError(RuntimeError):
    """The server answered with an error: the HTTP status, and `detail`, which names the fields."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(f"{status}: {'; '.join(str(d['msg']) for d in detail) if isinstance(detail, list) else detail}")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class ClientPrediction:
    """The result of `predict`, in the shape of the contexts: vectors [D] or [B, D]."""

    decoder: np.ndarray | None
    """y_dec, in the encoder's raw distribution; None when only y_cos was requested."""

    cosine: np.ndarray | None
    """y_cos, unit length; None when only y_dec was requested."""

    out_of_distribution: np.ndarray
    """bool, [] or [B]: the context is unlike the training embeddings."""

    model: str
    """Version of the model that answered."""

    recipe: str
    """Id of the encoder recipe."""


def _predict_request(contexts: np.ndarray, output_type: OutputType, model: str | None) -> dict[str, Any]:
    """The arguments of httpx's `request` for `POST /predict`."""
    body = io.BytesIO()
    np.save(body, np.ascontiguousarray(contexts, np.float32), allow_pickle=False)
    query = {"output_type": output_type} | ({"model": model} if model else {})
    return {"content": body.getvalue(), "params": query, "headers": {"content-type": "application/x-npy"}}


def _prediction(response: httpx.Response, contexts: np.ndarray, output_type: OutputType) -> ClientPrediction:
    """The response of `POST /predict`."""
    vectors = np.load(io.BytesIO(response.content), allow_pickle=False)
    decoder, cosine = vectors if output_type == "both" else (vectors, vectors)
    flags = np.array([flag == "1" for flag in response.headers["lvm-out-of-distribution"].split(",")])
    return ClientPrediction(
        decoder if output_type != "cosine" else None,
        cosine if output_type != "decoder" else None,
        flags if np.ndim(contexts) == 3 else flags[0],
        response.headers["lvm-model"],
        response.headers["lvm-recipe"],
    )


def _headers(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _retry_delay(response: httpx.Response, attempt: int) -> float | None:
    """Seconds to wait before the next attempt; None for a final response. Raises `ServingError` for an error."""
    if response.status_code == 429 and attempt < ATTEMPTS:
        return float(response.headers.get("retry-after", 1)) * random.uniform(0.5, 1.5)
    if response.is_error:
        try:
            detail = response.json()["detail"]
        except (ValueError, KeyError):
            detail = response.text[:200]
        raise ServingError(response.status_code, detail)
    return None


class Client:
    """A client that blocks until the response has come."""

    def __init__(self, address: str = "http://127.0.0.1:8766", key: str | None = None, timeout: float = 60.0) -> None:
        self._http = httpx.Client(base_url=address, headers=_headers(key), timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, contexts: np.ndarray, output_type: OutputType = "decoder", model: str | None = None) -> ClientPrediction:
        """Predict the chunk after each context, [T, D] or [B, T, D]."""
        response = self._send("POST", "/predict", **_predict_request(contexts, output_type, model))
        return _prediction(response, contexts, output_type)

    def predict_text(
        self, context: Sequence[str], steps: int = 1, decode: bool = False, neighbours: int = 0, model: str | None = None
    ) -> dict[str, Any]:
        """Predict what follows a text; the response of `POST /predict_text`."""
        response = self._send("POST", "/predict_text", json=_predict_text_request(context, steps, decode, neighbours, model))
        return response.json()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts, float32 [n, D]."""
        response = self._send("POST", "/encode", json={"texts": list(texts)})
        return np.array(response.json()["vectors"], np.float32)

    def decode(self, vectors: np.ndarray) -> list[dict[str, Any]]:
        """Texts of vectors [n, D]."""
        return self._send("POST", "/decode", json={"vectors": np.asarray(vectors).tolist()}).json()["results"]

    def info(self) -> dict[str, Any]:
        """The models that are served; the response of `GET /info`."""
        return self._send("GET", "/info").json()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            response = self._http.request(method, path, **options)
            if (delay := _retry_delay(response, attempt)) is None:
                break
            time.sleep(delay)
        return response


class AsyncClient:
    """The same client for asyncio."""

    def __init__(self, address: str = "http://127.0.0.1:8766", key: str | None = None, timeout: float = 60.0) -> None:
        self._http = httpx.AsyncClient(base_url=address, headers=_headers(key), timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(self, contexts: np.ndarray, output_type: OutputType = "decoder", model: str | None = None) -> ClientPrediction:
        """Predict the chunk after each context, [T, D] or [B, T, D]."""
        response = await self._send("POST", "/predict", **_predict_request(contexts, output_type, model))
        return _prediction(response, contexts, output_type)

    async def predict_text(
        self, context: Sequence[str], steps: int = 1, decode: bool = False, neighbours: int = 0, model: str | None = None
    ) -> dict[str, Any]:
        """Predict what follows a text; the response of `POST /predict_text`."""
        response = await self._send("POST", "/predict_text", json=_predict_text_request(context, steps, decode, neighbours, model))
        return response.json()

    async def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts, float32 [n, D]."""
        response = await self._send("POST", "/encode", json={"texts": list(texts)})
        return np.array(response.json()["vectors"], np.float32)

    async def decode(self, vectors: np.ndarray) -> list[dict[str, Any]]:
        """Texts of vectors [n, D]."""
        response = await self._send("POST", "/decode", json={"vectors": np.asarray(vectors).tolist()})
        return response.json()["results"]

    async def info(self) -> dict[str, Any]:
        """The models that are served; the response of `GET /info`."""
        return (await self._send("GET", "/info")).json()

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            response = await self._http.request(method, path, **options)
            if (delay := _retry_delay(response, attempt)) is None:
                break
            await asyncio.sleep(delay)
        return response


def _predict_text_request(context: Sequence[str], steps: int, decode: bool, neighbours: int, model: str | None) -> dict[str, Any]:
    """The JSON body of `POST /predict_text`."""
    return {"context": list(context), "steps": steps, "decode": decode, "neighbours": neighbours} | ({"model": model} if model else {})
