"""Which device a trainer runs on, and how several share a host.

A lease is a lock on a file per device, so that trainers of several flows never meet on one
accelerator; the operating system drops it when its holder dies, however it dies.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from lvm.errors import InputError


def accelerators() -> list[str]:
    """Accelerators of this host, as torch device names; empty on a host with a CPU alone."""
    if torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else []


def resolve_device(name: str) -> torch.device:
    """The device called `name`: 'auto' (the first accelerator, else the CPU), 'cpu', 'mps', 'cuda', 'cuda:N'.

    Raises `InputError` when it is not there: a run never falls back to another device.
    """
    if name == "auto":
        return torch.device((accelerators() or ["cpu"])[0])
    if name == "cuda":
        name = "cuda:0"
    if name != "cpu" and name not in accelerators():
        there = ", ".join([*accelerators(), "cpu"])
        raise InputError(f"device '{name}' is not on this machine: there are {there}")
    return torch.device(name)


def slots(models: int, device: str = "auto") -> tuple[list[str], int]:
    """Places to train `models` models at once, and the CPU threads that each gets.

    One place an accelerator where there are any (or the one that `device` names); on the CPU as
    many places as there are models, the cores shared out among them.
    """
    cores = os.cpu_count() or 1
    first = resolve_device(device)
    found = accelerators() if device in ("auto", "cuda") else [str(first)]
    places = [f"cpu-{i}" for i in range(models)] if found in ([], ["cpu"]) else found
    return places, max(1, cores // min(len(places), models))


def lease_folder() -> Path:
    """Folder of the lock files, one for all flows of a user on this host."""
    folder = Path(tempfile.gettempdir()) / f"lvm-leases-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def lease(places: list[str], poll_seconds: float = 0.2) -> Iterator[str]:
    """Hold one of `places` for the length of the block, waiting until one is free; yields a device name."""
    locks = {place: FileLock(lease_folder() / f"{place.replace(':', '-')}.lock") for place in places}
    while True:
        for place, lock in locks.items():
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                yield place.partition("-")[0]
            finally:
                lock.release()
            return
        time.sleep(poll_seconds)
