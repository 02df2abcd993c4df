"""The processes that train one model together: one, unless torchrun started more."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        if self.world > 1:
            flat = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(flat)
            parts = torch.split(flat / self.world, [t.numel() for t in tensors])
            torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(parts, tensors, strict=True)])

    def mean(self, value: torch.Tensor) -> float:
        """Mean of a scalar over the processes."""
        copy = [value.clone()]
        self.average(copy)
        return float(copy[0])

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.world > 1:
            dist.barrier()


def join(device: torch.device) -> Ranks:
    """Join the group that torchrun's environment describes, if there is one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(int(os.environ.get("RANK", "0")), world)


def own_device(name: str) -> str:
    """The device of this process: `name`, or under torchrun the accelerator of its number."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if local is not None and name in ("auto", "cuda") and torch.cuda.is_available() else name
