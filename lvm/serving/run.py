"""The process: a socket, the event loop, signals, logs."""

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
import uvloop
from pythonjsonlogger.orjson import OrjsonFormatter

from lvm.errors import InputError
from lvm.serving.admission import doorman
from lvm.serving.app import make_app
from lvm.serving.server import Server

KEY = "LVM_API_KEY"
LOCAL_NAMES = ["localhost", "127.0.0.1", "[::1]"]
DRAIN_SECONDS = 10


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def required_key(host: str) -> str | None:
    """The bearer key from the environment; `InputError` when others can reach the host and there is none."""
    key = os.environ.get(KEY) or None
    if key is None and not is_loopback(host):
        raise InputError(f"option --host {host}: others can reach it, so it needs a key: set {KEY} to a long random word")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InputError(f"{KEY}: use letters, digits and signs of ASCII")
    return key


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; `InputError` when that is impossible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(f"port {port} of {host} cannot be had ({error.strerror}): give another --port, or 0 for a free one") from error
    return listening


def run(server: Server, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP looks for newer models. Raises what kept the server from starting."""
    _log_as_json()
    app = make_app(server, LOCAL_NAMES if is_loopback(listening.getsockname()[0]) else ["*"])
    config = uvicorn.Config(
        app,
        http=doorman(server.rooms),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Web(config), server, listening, on_ready))
    if server.failure:
        raise server.failure


class Web(uvicorn.Server):
    """uvicorn without its handlers of signals, which end the process by the signal even when all has been answered."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to `_serve`."""
        yield

    def stop(self) -> None:
        """Answer what has been asked, then end."""
        self.should_exit = True


async def _serve(web: Web, server: Server, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    refreshing: set[asyncio.Task[None]] = set()

    def hangup() -> None:
        if server.loaded.is_set() and not server.failure:
            task = asyncio.create_task(server.models.refresh())
            refreshing.add(task)
            task.add_done_callback(refreshing.discard)

    async def started() -> None:
        await server.loaded.wait()
        if server.failure:
            web.stop()
        else:
            on_ready()

    loop.add_signal_handler(signal.SIGHUP, hangup)
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, web.stop)
    waiting = asyncio.create_task(started())
    await web.serve([listening])
    waiting.cancel()


def _log_as_json() -> None:
    """A line a request on standard error, for programs to read; no text of anybody's is in it."""
    handler = logging.StreamHandler(sys.stderr)
    names = {"asctime": "time", "levelname": "level"}
    handler.setFormatter(OrjsonFormatter("{asctime}{levelname}{name}{message}", style="{", rename_fields=names))
    for name, level in (("lvm.serving", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
