"""Dynamic batching: while one batch is computed the next one gathers; nobody waits for company.

LitServe, batched and async-batcher do this too. LitServe puts a process between, which costs a small model more than
its own computation (bench/serving); the others know no deadline, no bound and no client that leaves.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lvm.serving.loaded_model import Predicted, Served

ROWS = 64
"""Contexts in a batch, unless a single request brings more."""

IN_LOOP_SECONDS = 0.01
"""A batch that is expected to take no longer is computed in the event loop: another thread has to be woken, and then to win
Python's lock back after every step of the model while the loop turns others away (bench/serving/LOG.md)."""

GATHERING = 4
"""Turns of the event loop between the first request and its batch, in which those that have come with it are read. With fewer the
requests of a loaded server fall into two batches that keep each other waiting (bench/serving/LOG.md)."""


class ClientLeft(Exception):
    """Nobody waits for the answer."""


class DeadlinePassed(Exception):
    """The request waited longer than it may."""


@dataclass(frozen=True)
class Waiting:
    """A request in the queue."""

    served: Served
    contexts: np.ndarray
    answer: "asyncio.Future[Predicted]"
    until: float
    has_left: Callable[[], bool]

    @property
    def kind(self) -> tuple[int, tuple[int, ...]]:
        """Requests of one kind can be computed together: the same model, contexts of one length."""
        return id(self.served), self.contexts.shape[1:]


class Batcher:
    """A queue in front of whatever computes, one batch at a time. Whoever admits requests bounds it."""

    def __init__(self, on_batch: Callable[[int], None] = lambda rows: None) -> None:
        self._queue: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "predict")
        self._on_batch = on_batch

    def __len__(self) -> int:
        return len(self._queue)

    async def predict(
        self, served: Served, contexts_BTD: np.ndarray, until: float, has_left: Callable[[], bool] = lambda: False
    ) -> Predicted:
        """Predictions by `served`.

        Raises `DeadlinePassed` when they are not begun at `until`, in seconds of the monotonic clock, and `ClientLeft` when
        then nobody waits for them any more.
        """
        answer: asyncio.Future[Predicted] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(served, contexts_BTD, answer, until, has_left))
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        """Compute whatever arrives, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            for _ in range(GATHERING):
                await asyncio.sleep(0)
            while batch := self._take():
                contexts = [waiting.contexts for waiting in batch]
                joined = np.concatenate(contexts) if len(contexts) > 1 else contexts[0]
                self._on_batch(len(joined))
                served = batch[0].served
                try:
                    if served.seconds_per_chunk * joined.shape[0] * joined.shape[1] <= IN_LOOP_SECONDS:
                        found = served.predict(joined)
                    else:
                        found = await loop.run_in_executor(self._thread, served.predict, joined)
                except Exception as error:
                    _fail(batch, error)
                    continue
                _answer(batch, found)

    def _take(self) -> list[Waiting]:
        """The first request that is still wanted, with all of its kind that fit beside it."""
        batch: list[Waiting] = []
        left: deque[Waiting] = deque()
        rows, now = 0, time.monotonic()
        while self._queue:
            waiting = self._queue.popleft()
            if waiting.answer.done():
                continue
            if waiting.until < now:
                waiting.answer.set_exception(DeadlinePassed())
            elif waiting.has_left():
                waiting.answer.set_exception(ClientLeft())
            elif not batch or (waiting.kind == batch[0].kind and rows + len(waiting.contexts) <= ROWS):
                batch.append(waiting)
                rows += len(waiting.contexts)
            else:
                left.append(waiting)
        self._queue = left
        return batch


def _answer(batch: list[Waiting], found: Predicted) -> None:
    start = 0
    for waiting in batch:
        stop = start + len(waiting.contexts)
        if not waiting.answer.done():
            waiting.answer.set_result(found.part(start, stop))
        start = stop


def _fail(batch: list[Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
