"""Devices of this host: which there are, in which precision they compute, and how several processes share them.

A lease is a lock on a file, one for each device, so that the trainers of several flows never use one accelerator at a time. The
operating system frees it when the process that holds it ends, for whatever reason.
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
    """Accelerators of this host, as torch device names; empty where there is only a CPU."""
    if torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else []


def resolve_device(name: str) -> torch.device:
    """The device called `name`: 'auto' (the first accelerator, else the CPU), 'cpu', 'mps', 'cuda' or 'cuda:N'.

    Raises `InputError` when this host has no such device. A run never falls back to another one.
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
    """The devices of a list such as 'cuda:0,cuda:1', one for each process that trains a model together with the others.

    Raises `InputError` when this host lacks one of them, an accelerator is named twice, or they are of two kinds.
    """
    devices = [resolve_device(name) for name in names.split(",")]
    kinds = {device.type for device in devices}
    if len(kinds) > 1 or (kinds != {"cpu"} and len(set(devices)) < len(devices)):
        raise InputError(f"devices '{names}' cannot train together: name devices of one kind, each accelerator once")
    return devices


def resolve_dtype(device: str, dtype: str) -> torch.dtype:
    """The precision called `dtype`: 'float32', 'bfloat16', or 'auto' (bfloat16 where `device` computes in it natively, else float32)."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype in known:
        return known[dtype]
    if dtype != "auto":
        raise InputError(f"field 'dtype': {dtype!r} is not one of auto, float32, bfloat16")
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = device == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if native else torch.float32


class Slots(NamedTuple):
    """How models that train at once share the devices of a host."""

    places: list[str]
    """Names that can be leased: accelerators, or `cpu-0`, `cpu-1`, ... on the CPU."""

    per_model: int
    """Places that each model takes."""

    threads: int
    """CPU threads of each training process."""


def slots(models: int, device: str = "auto", per_model: int | None = None) -> Slots:
    """Places to train `models` models at once, how many each model takes, and the CPU threads of each process.

    Each accelerator is a place, or the one that `device` names. On the CPU there are as many places as are needed, and the cores are
    divided among them. Where `per_model` is None, the accelerators are divided among the models, and each model gets at least one.
    Raises `InputError` when a model asks for more accelerators than there are.
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
    """Folder of the lock files, shared by all flows of a user on this host."""
    folder = Path(tempfile.gettempdir()) / f"lvm-leases-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def lease(places: list[str], count: int = 1, poll_seconds: float = 0.2) -> Iterator[str]:
    """Wait until `count` of `places` are free, and hold them until the block ends.

    Yields them as `lvm train --device` takes them: 'cuda:1', or 'cuda:0,cuda:1'. A process that waits holds none of the places, so two
    processes can never wait for each other forever.
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
        # For a random time: two processes that each need all places would else try at the same moments.
        time.sleep(poll_seconds * random.uniform(0.5, 1.5))
