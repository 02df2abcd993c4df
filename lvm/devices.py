"""Which device a trainer runs on, and how several share a host.

A lease is a lock on a file per device, so that trainers of several flows never meet on one
accelerator; the operating system drops it when its holder dies, however it dies.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

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


def resolve_devices(names: str) -> list[torch.device]:
    """The devices of a list such as 'cuda:0,cuda:1', one for each of the processes that train a model together.

    Raises `InputError` when one is not there, an accelerator stands twice, or they are of two kinds.
    """
    devices = [resolve_device(name) for name in names.split(",")]
    kinds = {device.type for device in devices}
    if len(kinds) > 1 or (kinds != {"cpu"} and len(set(devices)) < len(devices)):
        raise InputError(f"devices '{names}' cannot train together: name devices of one kind, each accelerator once")
    return devices


class Slots(NamedTuple):
    """How models share the devices of a host."""

    places: list[str]
    """What may be leased."""

    per_model: int
    """Places that a model takes."""

    threads: int
    """CPU threads of each process that trains."""


def slots(models: int, device: str = "auto", per_model: int | None = None) -> Slots:
    """Places to train `models` models at once, how many each takes, and the CPU threads of each process.

    One place an accelerator where there are any (or the one that `device` names); on the CPU as
    many places as are wanted, the cores shared out among them. `per_model` None shares the accelerators out: one
    for each model, or more where there are more than models. Raises `InputError` when a model asks for more than there are.
    """
    cores = os.cpu_count() or 1
    first = resolve_device(device)
    found = accelerators() if device in ("auto", "cuda") else [str(first)]
    if found in ([], ["cpu"]):
        each = 1 if per_model is None else per_model
        if each < 1:
            raise InputError(f"field 'devices_per_model' is {each}: give 1 or more")
        found = [f"cpu-{i}" for i in range(models * each)]
    else:
        each = max(1, len(found) // models) if per_model is None else per_model
        if not 1 <= each <= len(found):
            raise InputError(f"field 'devices_per_model' is {each}: give 1 to {len(found)}, the devices there are")
    at_once = min(len(found) // each, models)
    return Slots(found, each, max(1, cores // (at_once * each)))


def lease_folder() -> Path:
    """Folder of the lock files, one for all flows of a user on this host."""
    folder = Path(tempfile.gettempdir()) / f"lvm-leases-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def lease(places: list[str], count: int = 1, poll_seconds: float = 0.2) -> Iterator[str]:
    """Hold `count` of `places` for the length of the block, waiting until so many are free.

    Yields them as `lvm train --device` takes them: 'cuda:1', or 'cuda:0,cuda:1'. Nobody waits with a part of what it
    needs in hand, so that those who wait for each other's devices never wait forever.
    """
    while True:
        with ExitStack() as held:
            devices: list[str] = []
            for place in places:
                if len(devices) == count:
                    break
                lock = FileLock(lease_folder() / f"{place.replace(':', '-')}.lock")
                with suppress(Timeout):
                    held.enter_context(lock.acquire(blocking=False))
                    devices.append(place.partition("-")[0])
            if len(devices) == count:
                yield ",".join(devices)
                return
        # Unevenly, or two that each need all would let go and grasp in the same moments.
        time.sleep(poll_seconds * random.uniform(0.5, 1.5))
