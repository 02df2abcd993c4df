"""Requests are computed together, each gets its own answer, and nobody's who has left."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from lvm.serving.batcher import IN_LOOP_SECONDS, ROWS, Batcher, ClientLeft, DeadlinePassed
from lvm.serving.loaded_model import Predicted, Served

FAR = float("inf")


class Counting:
    """A model that notes what it is asked, and waits until it may answer; too slow to be computed in the event loop."""

    def __init__(self, served: Served, seconds_per_chunk: float = 1.0) -> None:
        self._served, self.seconds_per_chunk = served, seconds_per_chunk
        self.asked: list[tuple[int, ...]] = []
        self.may = threading.Event()
        self.may.set()

    def predict(self, contexts: np.ndarray) -> Predicted:
        self.asked.append(contexts.shape)
        self.may.wait()
        return self._served.predict(contexts)


def run(work: Callable[[Batcher], Awaitable[None]]) -> None:
    async def main() -> None:
        batcher = Batcher()
        running = asyncio.create_task(batcher.run())
        try:
            await asyncio.wait_for(work(batcher), 30)
        finally:
            running.cancel()

    asyncio.run(main())


async def begun(counting: Counting, batches: int) -> None:
    while len(counting.asked) < batches:
        await asyncio.sleep(0.001)


def test_what_arrives_meanwhile_is_one_batch_and_each_gets_its_own(served, contexts):
    counting = Counting(served)
    counting.may.clear()

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.predict(counting, contexts[:2], FAR))
        await begun(counting, 1)
        others = [asyncio.create_task(batcher.predict(counting, contexts[i : i + 1], FAR)) for i in range(1, 6)]
        await asyncio.sleep(0)
        counting.may.set()
        answers = [await task for task in (first, *others)]
        assert [shape[0] for shape in counting.asked] == [2, 5]
        for i, answer in enumerate(answers[1:], 1):
            np.testing.assert_allclose(answer.decoder, served.predict(contexts[i : i + 1]).decoder, atol=1e-6)

    run(work)


def test_contexts_of_another_length_or_model_are_another_batch(served, contexts):
    one, two = Counting(served), Counting(served)
    one.may.clear()

    async def work(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.predict(one, contexts[:2], FAR))]
        await begun(one, 1)
        for asked in ((one, contexts[:2]), (one, contexts[:2, :3]), (two, contexts[:2]), (one, contexts[2:3]), (one, contexts[:1, :3])):
            tasks.append(asyncio.create_task(batcher.predict(*asked, FAR)))
        await asyncio.sleep(0)
        one.may.set()
        shapes = [len((await task).decoder) for task in tasks]
        assert shapes == [2, 2, 2, 2, 1, 1]
        assert [shape[:2] for shape in one.asked] == [(2, 5), (3, 5), (3, 3)]
        assert [shape[:2] for shape in two.asked] == [(2, 5)]

    run(work)


def test_batch_is_bounded_but_for_a_single_larger_request(served, contexts):
    counting = Counting(served)
    counting.may.clear()

    async def work(batcher: Batcher) -> None:
        large = np.tile(contexts, (20, 1, 1))
        tasks = [asyncio.create_task(batcher.predict(counting, contexts[:2], FAR))]
        await begun(counting, 1)
        tasks += [asyncio.create_task(batcher.predict(counting, part, FAR)) for part in (large, *[contexts] * 12)]
        await asyncio.sleep(0)
        counting.may.set()
        assert [len((await task).decoder) for task in tasks] == [2, 120, *[6] * 12]
        sizes = [shape[0] for shape in counting.asked]
        assert sizes[:2] == [2, 120] and max(sizes[2:]) <= ROWS and len(sizes) == 4

    run(work)


def test_request_whose_client_has_left_is_not_computed(served, contexts):
    counting = Counting(served)
    counting.may.clear()

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.predict(counting, contexts[:2], FAR))
        await begun(counting, 1)
        leaving = asyncio.create_task(batcher.predict(counting, contexts[:4], FAR))
        staying = asyncio.create_task(batcher.predict(counting, contexts[:2], FAR))
        await asyncio.sleep(0)
        leaving.cancel()
        gone = asyncio.create_task(batcher.predict(counting, contexts[:3], FAR, lambda: True))
        await asyncio.sleep(0)
        counting.may.set()
        await asyncio.gather(first, staying)
        with pytest.raises(ClientLeft):
            await gone
        assert [shape[0] for shape in counting.asked] == [2, 2]
        assert len(batcher) == 0

    run(work)


def test_request_that_waited_too_long_is_told_so_and_not_computed(served, contexts):
    counting = Counting(served)
    counting.may.clear()

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.predict(counting, contexts[:2], FAR))
        await begun(counting, 1)
        late = asyncio.create_task(batcher.predict(counting, contexts[:1], time.monotonic() + 0.01))
        await asyncio.sleep(0.05)
        counting.may.set()
        await first
        with pytest.raises(DeadlinePassed):
            await late
        assert len(counting.asked) == 1

    run(work)


def test_only_what_takes_long_is_computed_in_another_thread(served, contexts):
    threads = []

    class Noting(Counting):
        def predict(self, contexts: np.ndarray) -> Predicted:
            threads.append(threading.current_thread() is threading.main_thread())
            return super().predict(contexts)

    async def work(batcher: Batcher) -> None:
        per_chunk = IN_LOOP_SECONDS / (2 * contexts.shape[1])
        await batcher.predict(Noting(served, per_chunk), contexts[:2], FAR)
        await batcher.predict(Noting(served, per_chunk), contexts[:3], FAR)
        assert threads == [True, False]

    run(work)


def test_error_of_a_batch_reaches_those_in_it_and_the_next_goes_on(served, contexts):
    class Failing(Counting):
        def predict(self, contexts: np.ndarray) -> Predicted:
            super().predict(contexts)
            raise RuntimeError("out of memory")

    failing = Failing(served)

    async def work(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.predict(failing, contexts[:1], FAR)
        found = await batcher.predict(served, contexts[:1], FAR)
        assert found.decoder.shape == (1, contexts.shape[2])

    run(work)
