"""Saving and restoring in one file everything that a later training step depends on."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lvm.atomic_io import replacing
from lvm.errors import InputError

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter."""


@dataclass
class Progress:
    """Position and history of a run."""

    epoch: int = 0
    step: int = 0
    """Steps done since the run began."""

    epoch_step: int = 0
    """Steps done in this epoch."""

    micro_batch: int = 0
    """Stretches in one forward pass since memory ran out; 0 for the whole batch."""

    best_score: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)
    gradient_shares: list[dict[str, float]] = field(default_factory=list)


def save_state(
    file: Path,
    key: str,
    progress: Progress,
    tensors: Mapping[str, list[torch.Tensor]],
    optimizer: torch.optim.AdamW,
    device: torch.device,
) -> None:
    """Write the state durably.

    `key` is the run's identity. Each list in `tensors` has one tensor per parameter; "weight" has the parameters themselves, whose
    moments are taken from the optimizer.
    """
    state = {"rng": torch.get_rng_state()}
    if device.type == "cuda":
        state["rng_cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["rng_mps"] = torch.mps.get_rng_state()
    for i, parameter in enumerate(tensors["weight"]):
        # A parameter that no loss term reaches has no moments.
        values = {name: values[i] for name, values in tensors.items()} | optimizer.state.get(parameter, {})
        state |= {f"{name}.{i}": value.detach().cpu().contiguous() for name, value in values.items()}
    with replacing(file) as temporary:
        save_file(state, temporary, {"key": key, "progress": json.dumps(vars(progress))})


def load_state(
    file: Path, key: str, tensors: Mapping[str, list[torch.Tensor]], optimizer: torch.optim.AdamW, device: torch.device
) -> Progress:
    """Restore what `save_state` wrote: into the tensors that are passed, the optimizer and the random state.

    Raises `InputError` when the state belongs to another run or is damaged.
    """
    try:
        with safe_open(file, "pt") as state:
            metadata, names = state.metadata(), set(state.keys())
            if metadata["key"] != key:
                raise InputError(f"{file.parent.parent} was trained with another configuration or dataset: give --fresh or another --out")
            torch.set_rng_state(state.get_tensor("rng"))
            if device.type == "cuda" and "rng_cuda" in names:
                torch.cuda.set_rng_state(state.get_tensor("rng_cuda"), device)
            elif device.type == "mps" and "rng_mps" in names:
                torch.mps.set_rng_state(state.get_tensor("rng_mps"))
            with torch.no_grad():
                for i, parameter in enumerate(tensors["weight"]):
                    for name, values in tensors.items():
                        values[i].copy_(state.get_tensor(f"{name}.{i}"))
                    moments = {name: state.get_tensor(f"{name}.{i}") for name in MOMENTS if f"{name}.{i}" in names}
                    if not moments:
                        continue
                    # AdamW keeps its step count on the CPU, wherever the parameter is.
                    optimizer.state[parameter] = {name: m if name == "step" else m.to(device) for name, m in moments.items()}
            return Progress(**json.loads(metadata["progress"]))
    except InputError:
        raise
    except Exception as error:  # safetensors has exceptions of its own; a missing key and a wrong shape raise others
        raise InputError(f"{file} is truncated or altered ({error}): give --fresh to start over") from error
