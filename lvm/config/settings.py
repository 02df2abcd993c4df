"""Reading settings: a preset, then a YAML file, then assignments; what comes later wins.

There is one namespace for commands and flows. The fields of `TrainConfig` stand at its root (`epochs`, `model.width`,
`loss.infonce`), beside one section for each other part: `chunker`, `splits`, `gates`, `decoder`, `serving`. A name of an
architecture before a colon (`--set lstm:model.width=512`), or as a top-level key of a file, limits a training setting to it.
"""

import difflib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lvm.config.base import C, Config, parse
from lvm.config.data import ChunkerConfig, SplitConfig
from lvm.config.decoder import DecoderTrainConfig
from lvm.config.gates import GateThresholds
from lvm.config.presets import preset_assignments
from lvm.config.registry import ARCHITECTURES
from lvm.config.serving import ServingConfig
from lvm.config.train import TrainConfig
from lvm.errors import InputError

SECTIONS: dict[str, type[Config]] = {
    "chunker": ChunkerConfig,
    "splits": SplitConfig,
    "gates": GateThresholds,
    "decoder": DecoderTrainConfig,
    "serving": ServingConfig,
}
"""The sections beside the training's fields."""

TRAINING = "training"
"""What stands for the training's fields where sections are listed, as in `read_settings`."""

GIVEN = {"model": ("arch", "dim")}
"""Fields that no setting sets: `arch` is the option --arch, `dim` comes from the dataset."""


@dataclass(frozen=True)
class Layer:
    """Settings from one place, as nested values."""

    common: dict[str, Any] = field(default_factory=dict)
    by_architecture: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """All settings that were given, validated, in layers of which the later one wins."""

    layers: tuple[Layer, ...] = ()

    @cached_property
    def chunker(self) -> ChunkerConfig:
        """How text becomes chunks."""
        return self._section("chunker", ChunkerConfig)

    @cached_property
    def splits(self) -> SplitConfig:
        """How documents are divided."""
        return self._section("splits", SplitConfig)

    @cached_property
    def gates(self) -> GateThresholds:
        """Thresholds of the gates."""
        return self._section("gates", GateThresholds)

    @cached_property
    def decoder(self) -> DecoderTrainConfig:
        """Training of a decoder."""
        return self._section("decoder", DecoderTrainConfig)

    @cached_property
    def serving(self) -> ServingConfig:
        """The server."""
        return self._section("serving", ServingConfig)

    def train(self, arch: str, dim: int) -> TrainConfig:
        """The training of architecture `arch` on vectors of dimension `dim`."""
        values = self.training_values(arch)
        values["model"] = _merged({"arch": arch, "dim": dim}, values.get("model", {}))
        return parse(TrainConfig, values)

    def training_values(self, arch: str | None) -> dict[str, Any]:
        """What was set of the training of `arch`, as nested values without defaults."""
        out: dict[str, Any] = {}
        for layer in self.layers:
            for values in (layer.common, layer.by_architecture.get(arch or "", {})):
                out = _merged(out, {name: value for name, value in values.items() if name not in SECTIONS})
        return out

    def as_file(self, arch: str | None = None) -> str:
        """What was set, for one architecture or for none, as YAML that `--config` reads: a flow gives it to a trainer process."""
        values = self.training_values(arch) | {name: found for name in SECTIONS if (found := self._values(name))}
        return yaml.safe_dump(values, sort_keys=True)

    def _values(self, section: str) -> Any:
        out: Any = {}
        for layer in self.layers:
            if section in layer.common:
                out = _merged(out, layer.common[section])
        return out

    def _section(self, name: str, kind: type[C]) -> C:
        return parse(kind, self._values(name), f"{name}.")


def read_settings(
    preset: str | None = None, file: Path | None = None, assignments: Sequence[str] = (), reads: Collection[str] | None = None
) -> Settings:
    """Read and validate settings.

    `assignments` are such as `model.width=512`, the value as JSON where it parses as such, else a string. `reads` names the
    sections that the command reads (`TRAINING` for the training's fields): an assignment to another section is refused, since it
    would have no effect; a file may hold settings of every command. Raises `InputError`, in one sentence, that names an unknown
    preset, setting or architecture with those there are, or a bad value.
    """
    layers = []
    if preset is not None:
        layers.append(_layer(preset_assignments(preset)))
    if file is not None:
        layers.append(_read_file(file))
    for name in assignments if reads is not None else ():
        _require_read(name, reads or ())
    layers.append(_layer(assignments))
    settings = Settings(tuple(layers))
    _validate(settings)
    return settings


def train_config(arch: str, dim: int, assignments: Sequence[str] = (), preset: str | None = None) -> TrainConfig:
    """The training of `arch` on vectors of dimension `dim`, by a preset and assignments; raises what `read_settings` raises."""
    ARCHITECTURES.require(arch)
    return read_settings(preset, None, assignments).train(arch, dim)


def _validate(settings: Settings) -> None:
    """Every section, and the training of every architecture that has settings of its own, or of the first one when any are given."""
    for name, kind in SECTIONS.items():
        settings._section(name, kind)
    named = {arch for layer in settings.layers for arch in layer.by_architecture}
    if not named and not settings.training_values(""):
        return  # the defaults are valid, and importing the architectures takes seconds
    for arch in sorted(named) or ARCHITECTURES.names()[:1]:
        settings.train(arch, 1)


def _layer(assignments: Sequence[str]) -> Layer:
    """Assignments as nested values."""
    layer = Layer()
    for assignment in assignments:
        name, found, text = assignment.partition("=")
        if not found:
            raise InputError(f"setting {assignment!r}: expected FIELD=VALUE, such as model.width=512")
        arch, colon, rest = name.partition(":")
        target = layer.common
        if colon:
            ARCHITECTURES.require(arch)
            name, target = rest, layer.by_architecture.setdefault(arch, {})
        _require_known(name, own=bool(colon))
        try:
            value: Any = json.loads(text)
        except ValueError:
            value = text
        _put(target, name, value, assignment)
    return layer


def _put(target: dict[str, Any], name: str, value: Any, assignment: str) -> None:
    """Set the field with the dotted `name`."""
    *parents, last = name.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise InputError(f"setting {assignment!r}: '{parent}' is a value, not a group of fields")
    target[last] = value


def _read_file(file: Path) -> Layer:
    """A YAML file as a layer."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"config file {file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config file {file} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return Layer()
    if not isinstance(values, dict):
        raise InputError(f"config file {file}: expected settings by name, such as 'epochs: 20'")
    layer = Layer()
    for name, value in values.items():
        if isinstance(value, dict) and str(name) not in {**SECTIONS, **TrainConfig.model_fields} and str(name) in ARCHITECTURES:
            for inner in value:
                _require_known(str(inner), own=True)
            layer.by_architecture[str(name)] = value
        else:
            _require_known(str(name), own=False)
            layer.common[str(name)] = value
    return layer


def _require_known(name: str, own: bool) -> None:
    """Raise `InputError` unless the first part of a dotted name is a setting; sections are never for one architecture."""
    first, _, rest = name.partition(".")
    if own and first in SECTIONS:
        raise InputError(f"setting '{name}' cannot be for one architecture: only settings of a training can")
    if rest.partition(".")[0] in GIVEN.get(first, ()):
        raise InputError(f"setting '{name}' cannot be set: the architecture is named by --arch, the dimension comes from the dataset")
    known = [*TrainConfig.model_fields, *(() if own else SECTIONS)]
    if first not in known:
        near = difflib.get_close_matches(first, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"unknown setting '{name}': there are {', '.join(known)}{hint} ('lvm settings' lists every field)")


def _require_read(assignment: str, reads: Collection[str]) -> None:
    """Raise `InputError` when the command does not read the section of an assignment."""
    name = assignment.partition("=")[0].partition(":")[2] or assignment.partition("=")[0]
    _require_known(name, own=False)
    first = name.partition(".")[0]
    section = first if first in SECTIONS else TRAINING
    if section not in reads:
        raise InputError(f"setting '{name}' has no effect here: this command reads the settings of {', '.join(sorted(reads))}")


def _merged(first: Any, second: Any) -> Any:
    """`second` laid over `first`, group by group. A value in the place of a group replaces it; the validation refuses it."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return first | {name: _merged(first.get(name), value) for name, value in second.items()}
