"""What the routes work with: models, text, the queue before them, and the threads behind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from lvm.serving.admission import TEXT, VECTORS, Rooms
from lvm.serving.batcher import Batcher, ClientLeft
from lvm.serving.metrics import Measures
from lvm.serving.model_store import Models
from lvm.serving.text import TextOut

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How much at once, and how long."""

    vectors: int = 32
    """Requests for predictions inside at once, in a burst (`rooms.STEADY` of them for long); more are refused with 429."""

    text: int = 8
    """Requests that encode, decode or write, of which one is worked on at a time."""

    deadline: float = 10.0
    """Seconds within which a prediction must be begun; a request may ask for less with Request-Timeout."""

    watch: float | None = 2.0
    """Seconds between two looks for a newer model; None to look at SIGHUP alone."""


class NotReady(Exception):
    """What is asked for is still being loaded."""


class Server:
    """All that is served. Nothing is there until it is loaded, and until then the answer is 503."""

    def __init__(
        self, load_models: Callable[[Measures], Models], load_text: Callable[[Models], TextOut], limits: Limits, key: str | None
    ) -> None:
        self._load_models, self._load_text = load_models, load_text
        self.limits, self.key = limits, key
        self.batcher = Batcher(lambda rows: self.measures.rows.observe(rows))
        self.measures = Measures(lambda: len(self.batcher))
        self.rooms = Rooms({VECTORS: limits.vectors, TEXT: limits.text}, self.measures)
        self.texts = ThreadPoolExecutor(1, "text")
        self._models: Models | None = None
        self._text: TextOut | None = None
        self.failure: Exception | None = None
        """Why it could not start."""

        self.loaded = asyncio.Event()
        """Set when all is loaded, or will not be."""

    @property
    def models(self) -> Models:
        """The loaded models; raises `NotReady` before."""
        if self._models is None:
            raise NotReady("the models are being loaded")
        return self._models

    @property
    def text(self) -> TextOut:
        """Encoder, decoder and chunks; raises `NotReady` before they are loaded."""
        if self._text is None:
            raise NotReady("the encoder is being loaded")
        return self._text

    async def load(self) -> None:
        """Load the models, prove them, then what makes text. A failure is kept in `failure`."""
        try:
            self._models = await asyncio.to_thread(self._load_models, self.measures)
            self._text = await asyncio.get_running_loop().run_in_executor(self.texts, self._load_text, self._models)
            # What is loaded stays: the collector need not look at half a million objects again in the middle of a request.
            gc.collect()
            gc.freeze()
        except Exception as error:
            self.failure = error
        finally:
            gc.enable()
            self.loaded.set()

    async def watch(self) -> None:
        """Look for newer models again and again."""
        while self.limits.watch:
            await asyncio.sleep(self.limits.watch)
            if self._models:
                await self._models.refresh()

    async def in_text_thread(self, request: Request, work: Callable[[], T]) -> T:
        """Do slow work where it delays no prediction; it is not begun when the client has left before."""
        return await until_gone(request, asyncio.get_running_loop().run_in_executor(self.texts, work))


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client leaves before."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientLeft
        return doing.result()
    finally:
        leaving.cancel()
        doing.cancel()


def has_left(request: Request) -> bool:
    """Whether the client has hung up, found without waiting: the first step of `receive` ends at once when it has."""
    step = request.receive().__await__()
    try:
        next(step)
    except StopIteration as ended:
        return bool(ended.value["type"] == "http.disconnect")
    step.close()
    return False


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
