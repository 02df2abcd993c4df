"""Requests are computed together, each gets its own predictions, and a request whose client has left is not computed."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from lvm.serving.batcher import IN_LOOP_SECONDS, Batcher, ClientLeft, DeadlinePassed
from lvm.serving.loaded_model import LoadedModel, PredictionBatch

FAR = float("inf")
MAX_CONTEXTS = 64


class RecordingModel:
    """Records the shapes that it predicts from, and waits until it may; too slow to be computed in the event loop."""

    def __init__(self, model: LoadedModel, seconds_per_chunk: float = 1.0) -> None:
        self._model, self.seconds_per_chunk = model, seconds_per_chunk
        self.shapes: list[tuple[int, ...]] = []
        self.may_predict = threading.Event()
        self.may_predict.set()

    def predict(self, contexts: np.ndarray) -> PredictionBatch:
        self.shapes.append(contexts.shape)
        self.may_predict.wait()
        return self._model.predict(contexts)


def run(work: Callable[[Batcher], Awaitable[None]]) -> None:
    async def main() -> None:
        batcher = Batcher(MAX_CONTEXTS)
        running = asyncio.create_task(batcher.run())
        try:
            await asyncio.wait_for(work(batcher), 30)
        finally:
            running.cancel()

    asyncio.run(main())


async def start_batch(batcher: Batcher, recording: RecordingModel, contexts: np.ndarray) -> "asyncio.Task[PredictionBatch]":
    """A request whose batch is being computed until `recording.may_predict` is set."""
    recording.may_predict.clear()
    task = asyncio.create_task(batcher.predict(recording, contexts, FAR))
    while not recording.shapes:
        await asyncio.sleep(0.001)
    return task


def test_requests_that_arrive_during_a_batch_form_the_next_and_each_gets_its_own(model, contexts):
    recording = RecordingModel(model)

    async def work(batcher: Batcher) -> None:
        first = await start_batch(batcher, recording, contexts[:2])
        others = [asyncio.create_task(batcher.predict(recording, contexts[i : i + 1], FAR)) for i in range(1, 6)]
        await asyncio.sleep(0)
        recording.may_predict.set()
        answers = [await task for task in (first, *others)]
        assert [shape[0] for shape in recording.shapes] == [2, 5]
        for i, answer in enumerate(answers[1:], 1):
            np.testing.assert_allclose(answer.decoder, model.predict(contexts[i : i + 1]).decoder, atol=1e-6)

    run(work)


def test_contexts_of_another_length_or_model_are_another_batch(model, contexts):
    one, two = RecordingModel(model), RecordingModel(model)

    async def work(batcher: Batcher) -> None:
        tasks = [await start_batch(batcher, one, contexts[:2])]
        for request in ((one, contexts[:2]), (one, contexts[:2, :3]), (two, contexts[:2]), (one, contexts[2:3]), (one, contexts[:1, :3])):
            tasks.append(asyncio.create_task(batcher.predict(*request, FAR)))
        await asyncio.sleep(0)
        one.may_predict.set()
        assert [len((await task).decoder) for task in tasks] == [2, 2, 2, 2, 1, 1]
        assert [shape[:2] for shape in one.shapes] == [(2, 5), (3, 5), (3, 3)]
        assert [shape[:2] for shape in two.shapes] == [(2, 5)]

    run(work)


def test_batch_is_bounded_unless_a_single_request_is_larger(model, contexts):
    recording = RecordingModel(model)

    async def work(batcher: Batcher) -> None:
        large = np.tile(contexts, (20, 1, 1))
        tasks = [await start_batch(batcher, recording, contexts[:2])]
        tasks += [asyncio.create_task(batcher.predict(recording, part, FAR)) for part in (large, *[contexts] * 12)]
        await asyncio.sleep(0)
        recording.may_predict.set()
        assert [len((await task).decoder) for task in tasks] == [2, 120, *[6] * 12]
        sizes = [shape[0] for shape in recording.shapes]
        assert sizes[:2] == [2, 120] and max(sizes[2:]) <= MAX_CONTEXTS and len(sizes) == 4

    run(work)


def test_request_whose_client_has_left_is_not_computed(model, contexts):
    recording = RecordingModel(model)

    async def work(batcher: Batcher) -> None:
        first = await start_batch(batcher, recording, contexts[:2])
        leaving = asyncio.create_task(batcher.predict(recording, contexts[:4], FAR))
        staying = asyncio.create_task(batcher.predict(recording, contexts[:2], FAR))
        await asyncio.sleep(0)
        leaving.cancel()
        gone = asyncio.create_task(batcher.predict(recording, contexts[:3], FAR, lambda: True))
        await asyncio.sleep(0)
        recording.may_predict.set()
        await asyncio.gather(first, staying)
        with pytest.raises(ClientLeft):
            await gone
        assert [shape[0] for shape in recording.shapes] == [2, 2]
        assert len(batcher) == 0

    run(work)


def test_request_past_its_deadline_is_not_computed(model, contexts):
    recording = RecordingModel(model)

    async def work(batcher: Batcher) -> None:
        first = await start_batch(batcher, recording, contexts[:2])
        late = asyncio.create_task(batcher.predict(recording, contexts[:1], time.monotonic() + 0.01))
        await asyncio.sleep(0.05)
        recording.may_predict.set()
        await first
        with pytest.raises(DeadlinePassed):
            await late
        assert len(recording.shapes) == 1

    run(work)


def test_only_slow_batches_are_computed_in_another_thread(model, contexts):
    threads = []

    class ThreadRecordingModel(RecordingModel):
        def predict(self, contexts: np.ndarray) -> PredictionBatch:
            threads.append(threading.current_thread() is threading.main_thread())
            return super().predict(contexts)

    async def work(batcher: Batcher) -> None:
        per_chunk = IN_LOOP_SECONDS / (2 * contexts.shape[1])
        await batcher.predict(ThreadRecordingModel(model, per_chunk), contexts[:2], FAR)
        await batcher.predict(ThreadRecordingModel(model, per_chunk), contexts[:3], FAR)
        assert threads == [True, False]

    run(work)


def test_error_reaches_every_request_of_its_batch_and_the_next_batch_is_computed(model, contexts):
    class FailingModel(RecordingModel):
        def predict(self, contexts: np.ndarray) -> PredictionBatch:
            super().predict(contexts)
            raise RuntimeError("out of memory")

    failing = FailingModel(model)

    async def work(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.predict(failing, contexts[:1], FAR)
        found = await batcher.predict(model, contexts[:1], FAR)
        assert found.decoder.shape == (1, contexts.shape[2])

    run(work)
