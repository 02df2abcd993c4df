"""A typed client of the server, sync and async. Vectors travel as .npy: smaller than JSON, and the very numbers.

    with Client("http://127.0.0.1:8766") as client:
        prediction = client.predict(contexts)       # float32 [T, D] or [B, T, D]
        print(client.predict_text(["First sentence.", "Second."], neighbours=3)["steps"][0]["neighbours"])

A full server (429) is asked again after the time that it names, a few times.
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
    """The server refused; `status` is why, `detail` names the fields."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(f"{status}: {'; '.join(str(d['msg']) for d in detail) if isinstance(detail, list) else detail}")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Prediction:
    """The answer to `predict`, in the shape of the contexts: [D] or [B, D]."""

    decoder: np.ndarray | None
    """y_dec, in the encoder's raw distribution; None when only the other was asked for."""

    cosine: np.ndarray | None
    """y_cos, unit length."""

    out_of_distribution: np.ndarray
    """bool, [] or [B]."""

    model: str
    recipe: str


def _question(contexts: np.ndarray, output_type: OutputType, model: str | None) -> dict[str, Any]:
    """The request for predictions, as httpx takes it."""
    body = io.BytesIO()
    np.save(body, np.ascontiguousarray(contexts, np.float32), allow_pickle=False)
    query = {"output_type": output_type} | ({"model": model} if model else {})
    return {"content": body.getvalue(), "params": query, "headers": {"content-type": "application/x-npy"}}


def _prediction(response: httpx.Response, contexts: np.ndarray, output_type: OutputType) -> Prediction:
    """Its answer."""
    found = np.load(io.BytesIO(response.content), allow_pickle=False)
    decoder, cosine = found if output_type == "both" else (found, found)
    flags = np.array([flag == "1" for flag in response.headers["lvm-out-of-distribution"].split(",")])
    return Prediction(
        decoder if output_type != "cosine" else None,
        cosine if output_type != "decoder" else None,
        flags if np.ndim(contexts) == 3 else flags[0],
        response.headers["lvm-model"],
        response.headers["lvm-recipe"],
    )


def _headers(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _pause(response: httpx.Response, attempt: int) -> float | None:
    """Seconds to wait before the next attempt, None for a response that is final. Raises `ServingError` on a refusal."""
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
    """Calls that wait."""

    def __init__(self, address: str = "http://127.0.0.1:8766", key: str | None = None, timeout: float = 60.0) -> None:
        self._http = httpx.Client(base_url=address, headers=_headers(key), timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, contexts: np.ndarray, output_type: OutputType = "decoder", model: str | None = None) -> Prediction:
        """Predict the chunk after each context, [T, D] or [B, T, D]."""
        response = self._send("POST", "/predict", **_question(contexts, output_type, model))
        return _prediction(response, contexts, output_type)

    def predict_text(
        self, context: Sequence[str], steps: int = 1, decode: bool = False, neighbours: int = 0, model: str | None = None
    ) -> dict[str, Any]:
        """What follows a text; see `POST /predict_text`."""
        response = self._send("POST", "/predict_text", json=_text_body(context, steps, decode, neighbours, model))
        return response.json()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts, float32 [n, D]."""
        response = self._send("POST", "/encode", json={"texts": list(texts)})
        return np.array(response.json()["vectors"], np.float32)

    def decode(self, vectors: np.ndarray) -> list[dict[str, Any]]:
        """Texts of vectors [n, D]."""
        return self._send("POST", "/decode", json={"vectors": np.asarray(vectors).tolist()}).json()["results"]

    def info(self) -> dict[str, Any]:
        """What is served."""
        return self._send("GET", "/info").json()

    def _send(self, method: str, path: str, **asked: Any) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            response = self._http.request(method, path, **asked)
            if (pause := _pause(response, attempt)) is None:
                break
            time.sleep(pause)
        return response


class AsyncClient:
    """The same calls, awaited."""

    def __init__(self, address: str = "http://127.0.0.1:8766", key: str | None = None, timeout: float = 60.0) -> None:
        self._http = httpx.AsyncClient(base_url=address, headers=_headers(key), timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(self, contexts: np.ndarray, output_type: OutputType = "decoder", model: str | None = None) -> Prediction:
        """Predict the chunk after each context, [T, D] or [B, T, D]."""
        response = await self._send("POST", "/predict", **_question(contexts, output_type, model))
        return _prediction(response, contexts, output_type)

    async def predict_text(
        self, context: Sequence[str], steps: int = 1, decode: bool = False, neighbours: int = 0, model: str | None = None
    ) -> dict[str, Any]:
        """What follows a text; see `POST /predict_text`."""
        response = await self._send("POST", "/predict_text", json=_text_body(context, steps, decode, neighbours, model))
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
        """What is served."""
        return (await self._send("GET", "/info")).json()

    async def _send(self, method: str, path: str, **asked: Any) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            response = await self._http.request(method, path, **asked)
            if (pause := _pause(response, attempt)) is None:
                break
            await asyncio.sleep(pause)
        return response


def _text_body(context: Sequence[str], steps: int, decode: bool, neighbours: int, model: str | None) -> dict[str, Any]:
    return {"context": list(context), "steps": steps, "decode": decode, "neighbours": neighbours} | ({"model": model} if model else {})
