"""A service: one process detached from the terminal, known by its pid and its birth, so that no stranger is ever taken for it."""

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
"""Everything is for this machine alone."""

POLL_SECONDS = 0.1


class ServiceFailed(RuntimeError):
    """A service ended or never answered. The message names it and its log. Exit code 1."""

    exit_code = 1


class Service(BaseModel):
    """A process that was started, as its record in the folder of services keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int
    born: float
    """Its start, in seconds since 1970: another process of the same pid has another one."""

    port: int | None
    """Port of `HOST` that it listens on; None for one that does not listen."""

    log: Path

    @property
    def process(self) -> psutil.Process | None:
        """The very process that was started, or None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            return process if abs(process.create_time() - self.born) < 1 and _lives(process) else None
        except psutil.NoSuchProcess:
            return None

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"


def last_words(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")


def start(folder: Path, name: str, port: int | None, command: Sequence[str], environment: Mapping[str, str], within: Path) -> Service:
    """Start a service in a session of its own, its output in `folder/name.log`, its record in `folder/name.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=dict(environment), cwd=within, start_new_session=True
        )
    service = Service(name=name, pid=process.pid, born=psutil.Process(process.pid).create_time(), port=port, log=log)
    write_text(record(folder, name), service.model_dump_json() + "\n")
    return service


def record(folder: Path, name: str) -> Path:
    """The file that knows the service `name`."""
    return folder / f"{name}.json"


def running(folder: Path, name: str) -> Service | None:
    """The service `name`, when it runs; the record of one that has ended is removed."""
    file = record(folder, name)
    if not file.exists():
        return None
    service = Service.model_validate_json(file.read_text(encoding="utf-8"))
    if service.process is None:
        file.unlink()
        return None
    return service


def stop(folder: Path, name: str, seconds: float) -> bool:
    """End a service and all that it started: asked to first, killed when it still runs `seconds` later.

    Returns whether it ran.
    """
    service = running(folder, name)
    process = service.process if service else None
    if process is None:
        return False
    family = [process]
    with suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)  # asked now: those of a dead parent cannot be found
        process.terminate()
    end = time.monotonic() + seconds
    while any(map(_lives, family)) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    for member in filter(_lives, family):
        with suppress(psutil.NoSuchProcess):
            member.kill()  # psutil makes sure that it is still the same process
    while any(map(_lives, family)):
        time.sleep(POLL_SECONDS)
    record(folder, name).unlink(missing_ok=True)
    return True


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about does not."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port(asked: int | None, usual: int, variable: str) -> int:
    """The port `asked` for; without one the usual port, or any free one where that is taken.

    Raises `InputError` when the port that was asked for is taken. `variable` is how it was asked for.
    """
    if asked is not None and not _is_free(asked):
        raise InputError(f"{variable}: port {asked} of {HOST} is in use; give another one, or leave {variable} out for a free one")
    return asked if asked is not None else usual if _is_free(usual) else _any_port()


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed a moment ago is free
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def _any_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
