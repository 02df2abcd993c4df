"""Dynamic batching: the requests that arrive while one batch is computed form the next; no request waits for a batch to fill.

LitServe, batched and async-batcher batch as well. LitServe computes in another process, which costs a small model more than its
own computation (bench/serving/LOG.md); the others have no deadline, no bound and do not notice a client that disconnects.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lvm.serving.loaded_model import LoadedModel, PredictionBatch

IN_LOOP_SECONDS = 0.01
"""A batch that is expected to take no longer is computed in the event loop. Another thread would have to be woken, and to win
the interpreter lock back after every step of the model while the loop rejects requests (bench/serving/LOG.md)."""

GATHER_TURNS = 4
"""Turns of the event loop between the first request and its batch, in which requests that arrived with it are read. With fewer
turns the requests of a busy server fall into two batches that keep each other waiting (bench/serving/LOG.md)."""


class ClientLeft(Exception):
    """The client disconnected, so nobody waits for the response."""


class DeadlinePassed(Exception):
    """The computation did not begin before the request's deadline."""


@dataclass(frozen=True)
class QueuedRequest:
    """A request that waits for its batch."""

    model: "LoadedModel"
    contexts_BTD: np.ndarray
    result: "asyncio.Future[PredictionBatch]"

    deadline: float
    """Seconds of the monotonic clock."""

    has_left: Callable[[], bool]
    """Whether the client has disconnected."""

    @property
    def batch_key(self) -> tuple[int, tuple[int, ...]]:
        """Requests with equal keys can be computed together: the same model, contexts of one length."""
        return id(self.model), self.contexts_BTD.shape[1:]


class Batcher:
    """A queue of predictions, computed one batch at a time. Admission control bounds its length."""

    def __init__(self, max_contexts: int, on_batch: Callable[[int], None] = lambda contexts: None) -> None:
        """`max_contexts` in a batch, unless a single request has more; `on_batch` is called with the size of each batch."""
        self._max_contexts, self._on_batch = max_contexts, on_batch
        self._queue: deque[QueuedRequest] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "predict")

    def __len__(self) -> int:
        return len(self._queue)

    async def predict(
        self, model: "LoadedModel", contexts_BTD: np.ndarray, deadline: float, has_left: Callable[[], bool] = lambda: False
    ) -> "PredictionBatch":
        """Predictions of `model` for the contexts.

        Raises `DeadlinePassed` when their computation has not begun at `deadline`, in seconds of the monotonic clock, and
        `ClientLeft` when the client has disconnected by then.
        """
        result: asyncio.Future[PredictionBatch] = asyncio.get_running_loop().create_future()
        self._queue.append(QueuedRequest(model, contexts_BTD, result, deadline, has_left))
        self._arrived.set()
        return await result

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            for _ in range(GATHER_TURNS):
                await asyncio.sleep(0)
            while batch := self._next_batch():
                try:
                    predicted = await self._compute(batch)
                except Exception as error:
                    _fail(batch, error)
                    continue
                _deliver(batch, predicted)

    async def _compute(self, batch: list[QueuedRequest]) -> "PredictionBatch":
        parts = [request.contexts_BTD for request in batch]
        contexts, model = np.concatenate(parts) if len(parts) > 1 else parts[0], batch[0].model
        self._on_batch(len(contexts))
        if model.seconds_per_chunk * contexts.shape[0] * contexts.shape[1] <= IN_LOOP_SECONDS:
            return model.predict(contexts)
        return await asyncio.get_running_loop().run_in_executor(self._thread, model.predict, contexts)

    def _next_batch(self) -> list[QueuedRequest]:
        """The first request that is still wanted, with all others that fit into its batch."""
        batch: list[QueuedRequest] = []
        remaining: deque[QueuedRequest] = deque()
        contexts, now = 0, time.monotonic()
        while self._queue:
            request = self._queue.popleft()
            if request.result.done():
                continue
            if request.deadline < now:
                request.result.set_exception(DeadlinePassed())
            elif request.has_left():
                request.result.set_exception(ClientLeft())
            elif not batch or (request.batch_key == batch[0].batch_key and contexts + len(request.contexts_BTD) <= self._max_contexts):
                batch.append(request)
                contexts += len(request.contexts_BTD)
            else:
                remaining.append(request)
        self._queue = remaining
        return batch


def _deliver(batch: list[QueuedRequest], predicted: "PredictionBatch") -> None:
    """Give each request its part of the predictions."""
    start = 0
    for request in batch:
        stop = start + len(request.contexts_BTD)
        if not request.result.done():
            request.result.set_result(predicted.part(start, stop))
        start = stop


def _fail(batch: list[QueuedRequest], error: Exception) -> None:
    """Give each request the error of its batch."""
    for request in batch:
        if not request.result.done():
            request.result.set_exception(error)
