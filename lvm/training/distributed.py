"""The processes that train one model together: one, unless torchrun started more.

Each has the whole model and a share of every batch. They exchange sums, so that every process gets the same numbers and takes the same
step. Only rank 0 writes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from lvm.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    """Where this process keeps what it exchanges: NCCL reads GPU memory only."""

    def share(self, count: int) -> slice:
        """This process's share of `count` items. Shares are contiguous and their sizes differ by at most one."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.world > 1:
            flat = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(flat)
            parts = torch.split(flat, [t.numel() for t in tensors])
            torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(parts, tensors, strict=True)])

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        if self.world > 1:
            self.sum(tensors)
            torch._foreach_div_(list(tensors), self.world)

    def mean(self, value: torch.Tensor) -> float:
        """Mean of a scalar over the processes."""
        copy = [value.clone()]
        self.average(copy)
        return float(copy[0])

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of the processes."""
        if self.world == 1:
            return flag
        count = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(count)
        return bool(count > 0)

    def first(self, value: float) -> float:
        """Rank 0's `value`, for decisions on which rounding must not make the processes differ."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        """Wait until every process has reached this call."""
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """Leave the group at the end."""
        if self.world > 1:
            dist.destroy_process_group()


def join(device: torch.device) -> Ranks:
    """Join the group that torchrun's environment variables describe, if there is one.

    Raises `InputError` on a device that has no collective operations.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        if device.type not in ("cuda", "cpu"):
            raise InputError(f"device '{device}' cannot be one of {world}: several processes train on cuda or cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(int(os.environ.get("RANK", "0")), world, str(device))


def own_device(name: str) -> str:
    """The name of this process's device.

    `name` has one device for each process, as in 'cuda:1,cuda:3', or one for all. For 'auto' and 'cuda', process N of torchrun takes
    accelerator N. Raises `InputError` when the number of devices is not the number of processes.
    """
    local, names = os.environ.get("LOCAL_RANK"), name.split(",")
    if len(names) > 1:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if len(names) != processes:
            raise InputError(f"device '{name}' names {len(names)} devices for {processes} processes: name one for each")
        return names[int(local or 0)]
    return f"cuda:{local}" if local is not None and name in ("auto", "cuda") and torch.cuda.is_available() else name
