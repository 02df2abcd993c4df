"""The server process: its socket, event loop, signals and logs."""

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
from lvm.serving.app import make_app
from lvm.serving.http_protocol import admission_protocol
from lvm.serving.server import ModelServer

KEY_VARIABLE = "LVM_API_KEY"
LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_key(host: str) -> str | None:
    """The API key in the environment, if any; `InputError` when other machines can reach `host` and there is none."""
    key = os.environ.get(KEY_VARIABLE) or None
    if key is None and not is_loopback(host):
        raise InputError(
            f"option --host {host}: other machines can reach it, so a key is required: set {KEY_VARIABLE} to a long random word"
        )
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InputError(f"{KEY_VARIABLE}: use printable ASCII characters only")
    return key


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address; `InputError` when that is impossible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise InputError(f"port {port} of {host} is not available ({error.strerror}): give another --port, or 0 for a free one") from error
    return bound


def run(server: ModelServer, bound: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP checks for newer models. Raises the error that kept the server from loading."""
    _log_as_json()
    app = make_app(server, LOOPBACK_NAMES if is_loopback(bound.getsockname()[0]) else ["*"])
    config = uvicorn.Config(
        app,
        http=admission_protocol(server.admission),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=server.config.drain,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(UvicornServer(config), server, bound, on_ready))
    if server.failure:
        raise server.failure


class UvicornServer(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal even after a clean shutdown."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `_serve`."""
        yield

    def stop(self) -> None:
        """Finish the requests in flight, then end."""
        self.should_exit = True


async def _serve(web: UvicornServer, server: ModelServer, bound: socket.socket, on_ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    refreshes: set[asyncio.Task[None]] = set()

    def refresh() -> None:
        if server.loaded.is_set() and not server.failure:
            task = asyncio.create_task(server.models.refresh())
            refreshes.add(task)
            task.add_done_callback(refreshes.discard)

    async def announce() -> None:
        await server.loaded.wait()
        if server.failure:
            web.stop()
        else:
            on_ready()

    loop.add_signal_handler(signal.SIGHUP, refresh)
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, web.stop)
    announcing = asyncio.create_task(announce())
    await web.serve([bound])
    announcing.cancel()


def _log_as_json() -> None:
    """Log JSON lines to standard error, one for each request; no text of a request is logged."""
    handler = logging.StreamHandler(sys.stderr)
    names = {"asctime": "time", "levelname": "level"}
    handler.setFormatter(OrjsonFormatter("{asctime}{levelname}{name}{message}", style="{", rename_fields=names))
    for name, level in (("lvm.serving", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
