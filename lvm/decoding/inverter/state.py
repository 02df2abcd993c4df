"""Save and restore the training of an inverter between two rounds, in one file."""

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
"""Names of what AdamW or Muon stores for a parameter."""


def save_round(
    file: Path,
    key: str,
    rounds: int,
    step: int,
    metrics: dict[str, float],
    model: InverterModel,
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Write weights, moments, position and the latest validation `metrics` durably. `key` identifies the run."""
    state: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        state[f"weight.{name}"] = parameter
        state |= {f"{kept}.{name}": value for o in optimizers for kept, value in o.state.get(parameter, {}).items()}
    state |= {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
    place = {"round": rounds, "step": step, "measured": metrics}
    with replacing(file) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary, {"key": key, "progress": json.dumps(place)})


def load_round(
    file: Path, key: str, model: InverterModel, optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[int, int, dict[str, float]]:
    """Restore `model` and `optimizers` from what `save_round` wrote; return rounds done, steps done, and metrics.

    Raises `InputError` when the state belongs to another run or is damaged.
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
    except Exception as error:  # safetensors, a missing key and a wrong shape each raise another class
        raise InputError(f"{file} is truncated or altered ({error}): give --fresh to start over") from error
