"""What the routes work with: the models, the text pipeline, the queue in front of them and the thread behind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from fastapi import Request

from lvm.config import ServingConfig
from lvm.serving.admission import AdmissionControl
from lvm.serving.batcher import Batcher, ClientLeft
from lvm.serving.metrics import ServingMetrics

if TYPE_CHECKING:
    from lvm.serving.model_store import ModelStore
    from lvm.serving.text import TextPipeline

T = TypeVar("T")


class NotReady(Exception):
    """The models or the encoder are still loading."""


class ModelServer:
    """The state of one server. It answers health checks at once, and everything else with 503 until `load` is done."""

    def __init__(
        self,
        load_models: "Callable[[ServingMetrics], ModelStore]",
        load_text: "Callable[[ModelStore], TextPipeline]",
        config: ServingConfig,
        key: str | None,
    ) -> None:
        """`load_models` and `load_text` are called in threads by `load`; `key` is the API key, if one is required."""
        self._load_models, self._load_text = load_models, load_text
        self.config, self.key = config, key
        self.batcher = Batcher(config.batch, lambda contexts: self.metrics.batch_size.observe(contexts))
        self.metrics = ServingMetrics(lambda: len(self.batcher))
        self.admission = AdmissionControl(config, self.metrics)
        self._text_thread = ThreadPoolExecutor(1, "text")
        self._models: ModelStore | None = None
        self._text: TextPipeline | None = None
        self.failure: Exception | None = None
        """Why loading failed."""

        self.loaded = asyncio.Event()
        """Set when loading is done or has failed."""

    @property
    def models(self) -> "ModelStore":
        """The loaded models; raises `NotReady` while they load."""
        if self._models is None:
            raise NotReady("the models are still loading")
        return self._models

    @property
    def text(self) -> "TextPipeline":
        """Encoder, decoder and chunks; raises `NotReady` while they load."""
        if self._text is None:
            raise NotReady("the encoder is still loading")
        return self._text

    async def load(self) -> None:
        """Load the models, then the text pipeline. An error is kept in `failure`."""
        # Garbage collection would take a tenth to a fifth of the imports' time, on objects that stay.
        gc.disable()
        try:
            self._models = await asyncio.to_thread(self._load_models, self.metrics)
            self._text = await asyncio.get_running_loop().run_in_executor(self._text_thread, self._load_text, self._models)
            # Loaded objects stay: the garbage collector need not scan half a million of them in the middle of a request.
            gc.collect()
            gc.freeze()
        except Exception as error:
            self.failure = error
        finally:
            gc.enable()
            self.loaded.set()

    async def watch(self) -> None:
        """Check for newer models at intervals, if the configuration asks for it."""
        while self.config.watch:
            await asyncio.sleep(self.config.watch)
            if self._models:
                await self._models.refresh()

    async def in_text_thread(self, request: Request, work: Callable[[], T]) -> T:
        """Run slow work where it does not delay predictions, one at a time.

        Raises `ClientLeft` when the client disconnects; work that has not started by then is never run.
        """
        return await _unless_client_leaves(request, asyncio.get_running_loop().run_in_executor(self._text_thread, work))


def has_left(request: Request) -> bool:
    """Whether the client has disconnected, without waiting: the first step of `receive` ends at once when it has."""
    step = request.receive().__await__()
    try:
        next(step)
    except StopIteration as ended:
        return bool(ended.value["type"] == "http.disconnect")
    step.close()
    return False


async def _unless_client_leaves(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client disconnects first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
