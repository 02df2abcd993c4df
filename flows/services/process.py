"""A service: a process detached from the terminal, identified by its pid and start time, so that no other process is taken for it."""

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from lvm.atomic_io import write_text
from lvm.errors import InputError

HOST = "127.0.0.1"
"""Services listen on this machine alone."""

POLL_SECONDS = 0.1


class ServiceFailed(RuntimeError):
    """A service ended or did not answer. The message names it and its log. Exit code 1."""

    exit_code = 1


class Service(BaseModel):
    """A started process, as its record in the folder of services describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int
    started: float
    """Start time in seconds since 1970. It tells the process from a later one that got the same pid."""

    port: int | None
    """Port on `HOST` that it listens on; None if it does not listen."""

    log: Path

    @property
    def process(self) -> psutil.Process | None:
        """The running process, or None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            return process if abs(process.create_time() - self.started) < 1 and _is_running(process) else None
        except psutil.NoSuchProcess:
            return None

    @property
    def address(self) -> str:
        """Base URL of the service."""
        return f"http://{HOST}:{self.port}"


def last_words(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "its log is empty")


def start(folder: Path, name: str, port: int | None, command: Sequence[str], environment: Mapping[str, str], within: Path) -> Service:
    """Start a service in its own session, with its output in `folder/name.log` and its record in `folder/name.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=dict(environment), cwd=within, start_new_session=True
        )
    service = Service(name=name, pid=process.pid, started=psutil.Process(process.pid).create_time(), port=port, log=log)
    write_text(record(folder, name), service.model_dump_json() + "\n")
    return service


def record(folder: Path, name: str) -> Path:
    """The record file of the service `name`."""
    return folder / f"{name}.json"


def running(folder: Path, name: str) -> Service | None:
    """The service `name` if it is running, else None. The record of a service that has ended is removed."""
    file = record(folder, name)
    if not file.exists():
        return None
    service = Service.model_validate_json(file.read_text(encoding="utf-8"))
    if service.process is None:
        file.unlink()
        return None
    return service


def stop(folder: Path, name: str, seconds: float) -> bool:
    """Stop a service and its children: terminate first, kill what still runs after `seconds`.

    Returns whether it was running.
    """
    service = running(folder, name)
    process = service.process if service else None
    if process is None:
        return False
    family = [process]
    with suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)  # listed now: once the parent is gone, they cannot be found
        process.terminate()
    end = time.monotonic() + seconds
    while any(map(_is_running, family)) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    for member in filter(_is_running, family):
        with suppress(psutil.NoSuchProcess):
            member.kill()  # psutil checks that the pid still belongs to this process
    while any(map(_is_running, family)):
        time.sleep(POLL_SECONDS)
    record(folder, name).unlink(missing_ok=True)
    return True


def _is_running(process: psutil.Process) -> bool:
    """Whether a process is running. A zombie, which has ended but was not waited for, is not."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port(asked: int | None, usual: int, variable: str) -> int:
    """The port `asked` for, or else the usual one, or else any free one.

    Raises `InputError`, which names the environment variable `variable`, when the port asked for is taken.
    """
    if asked is not None and not _is_free(asked):
        raise InputError(f"{variable}: port {asked} of {HOST} is in use: give another one, or unset {variable} for a free one")
    return asked if asked is not None else usual if _is_free(usual) else _any_port()


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port closed a moment ago counts as free
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def _any_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
