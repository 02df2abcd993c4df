"""Baselines once they are fitted: how they predict, and the file that keeps them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lvm.atomic_io import replacing
from lvm.config import BASELINES
from lvm.errors import InputError

Parameters = dict[str, torch.Tensor]
"""What was fitted for one baseline, by name: tensors, numbers as float64 scalars."""


def number(value: float) -> torch.Tensor:
    """A fitted number as it is kept: a float64 scalar."""
    return torch.tensor(float(value), dtype=torch.float64)


def of(name: str, parameters: Parameters) -> Parameters:
    """The parameters of a used baseline among those that `Baselines.of` gives."""
    return {key.removeprefix(f"{name}."): value for key, value in parameters.items() if key.startswith(f"{name}.")}


@dataclass(frozen=True)
class Baselines:
    """All baselines, fitted for one context length."""

    context_length: int
    mean: torch.Tensor
    """[D]: mean of the training chunks."""

    names: tuple[str, ...]
    """Which baselines there are; each is registered in `BASELINES`."""

    parameters: dict[str, Parameters]
    """What was fitted, by baseline."""

    def predict(self, context_BTD: torch.Tensor) -> dict[str, torch.Tensor]:
        """One prediction [B, D] by each baseline, from contexts [B, T, D] on the device of the parameters; see `to`.

        Of longer contexts the last `context_length` chunks are read.

        Raises `InputError` when a baseline is not registered in this process.
        """
        x = context_BTD[:, -self.context_length :]
        return {name: BASELINES[name](x, self.mean, self.of(name)) for name in self.names}

    def of(self, name: str) -> Parameters:
        """The parameters of a baseline, and as 'other.parameter' those of the baselines that it `uses`."""
        used = {f"{other}.{key}": value for other in BASELINES.about(name).get("uses", ()) for key, value in self.of(other).items()}
        return self.parameters.get(name, {}) | used

    def choices(self) -> dict[str, float]:
        """Every fitted number, as 'baseline.parameter': decays, penalties and weights."""
        fitted = {f"{name}.{key}": value for name, values in self.parameters.items() for key, value in values.items()}
        return {name: float(value) for name, value in fitted.items() if not value.ndim}

    def to(self, device: torch.device) -> "Baselines":
        """A copy on `device`. Numbers stay on the CPU, where reading one waits for nothing."""

        def moved(parameters: Parameters) -> Parameters:
            return {key: value.to(device) if value.ndim else value for key, value in parameters.items()}

        return replace(self, mean=self.mean.to(device), parameters={name: moved(own) for name, own in self.parameters.items()})

    def save(self, path: Path) -> None:
        """Write as safetensors, durably. The mean is not written: it is part of the model."""
        # One entry alone: safetensors writes several in an order of its own.
        metadata = {"fitted": json.dumps({"context_length": self.context_length, "names": self.names}, sort_keys=True)}
        tensors = {f"{name}.{key}": value.cpu().contiguous() for name, own in self.parameters.items() for key, value in own.items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, path: Path, mean: torch.Tensor) -> "Baselines":
        """Read what `save` wrote; `mean` [D] is that of the training chunks. Raises `InputError` when the file is missing or damaged."""
        try:
            with safe_open(path, "pt") as file:
                fitted = json.loads(file.metadata()["fitted"])
                parameters: dict[str, Parameters] = {}
                for key in file.keys():  # noqa: SIM118, the file is no dictionary
                    name, _, parameter = key.rpartition(".")
                    parameters.setdefault(name, {})[parameter] = file.get_tensor(key)
                return cls(fitted["context_length"], mean.cpu(), tuple(fitted["names"]), parameters)
        except Exception as error:  # safetensors has exceptions of its own, and a missing key is another
            raise InputError(f"{path} is not a baselines file ({error}): train the model again") from error
