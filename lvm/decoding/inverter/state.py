"""Saving and restoring an inverter's training between two rounds, in one file."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lvm.atomic_io import replacing
from lvm.decoding.inverter.model import InverterModel
from lvm.errors import InputError
from lvm.training.state import MOMENTS

KEPT = (*MOMENTS, "momentum_buffer")
"""What AdamW or Muon keeps for a parameter."""


def save_round(
    file: Path,
    key: str,
    rounds: int,
    step: int,
    measured: dict[str, float],
    model: InverterModel,
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Write weights, moments and position durably. `key` is the run's identity."""
    state: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        state[f"weight.{name}"] = parameter
        state |= {f"{kept}.{name}": value for o in optimizers for kept, value in o.state.get(parameter, {}).items()}
    state |= {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
    place = {"round": rounds, "step": step, "measured": measured}
    with replacing(file) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary, {"key": key, "progress": json.dumps(place)})


def load_round(
    file: Path, key: str, model: InverterModel, optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[int, int, dict[str, float]]:
    """Restore what `save_round` wrote into `model` and `optimizers`; returns rounds done, steps done, last measurement.

    Raises `InputError` when the state is of another run or damaged.
    """
    try:
        with safe_open(file, "pt") as state, torch.no_grad():
            metadata, names = state.metadata(), set(state.keys())
            if metadata["key"] != key:
                other = "another configuration, dataset or number of processes"
                raise InputError(f"{file.parent.parent} was trained with {other}: give --fresh or another --out")
            for name, parameter in model.named_parameters():
                parameter.copy_(state.get_tensor(f"weight.{name}"))
                kept = {k: state.get_tensor(f"{k}.{name}").to(parameter.device) for k in KEPT if f"{k}.{name}" in names}
                for optimizer in optimizers:
                    if any(parameter is other for group in optimizer.param_groups for other in group["params"]):
                        optimizer.state[parameter] = kept
            for name, buffer in model.named_buffers():
                buffer.copy_(state.get_tensor(f"buffer.{name}"))
            place = json.loads(metadata["progress"])
            return int(place["round"]), int(place["step"]), place["measured"]
    except InputError:
        raise
    except Exception as error:  # safetensors raises its own kinds, a missing key or another shape others
        raise InputError(f"{file} is truncated or altered ({error}): give --fresh to start over") from error
