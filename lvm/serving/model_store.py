"""The models that a server holds: the champion and any others, each reloaded when its folder changes."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from lvm.errors import GateRefused, InputError
from lvm.serving.loaded_model import LoadedModel
from lvm.serving.metrics import ServingMetrics
from lvm.serving.requests import FieldError

log = logging.getLogger("lvm.serving")

Version = tuple[str, int]
"""The resolved folder of a model and when its config.json was written: it changes when the model does."""


@dataclass
class ModelSlot:
    """A folder, or a link to one, and the model that was last loaded from it."""

    path: Path
    model: LoadedModel
    version: Version

    refused: Version | None = None
    """A newer version that did not load; it is not tried again until it changes."""

    error: str | None = None
    """Why it did not load."""


class ModelStore:
    """The loaded models by name; the first is the default."""

    def __init__(self, paths: list[Path], device: torch.device, metrics: ServingMetrics) -> None:
        """Load all; raises `InputError` or `GateRefused` when one does not load."""
        self._device, self._metrics = device, metrics
        self._refresh_lock = asyncio.Lock()
        self._slots: list[ModelSlot] = []
        for path in paths:
            version = _version(path)
            if all(version[0] != slot.version[0] for slot in self._slots):
                self._slots.append(ModelSlot(path, LoadedModel(path, device), version))
                self._require_same_encoder(self._slots[-1].model)
        self._record_models()

    @property
    def models(self) -> list[LoadedModel]:
        """All models, the default first."""
        return [slot.model for slot in self._slots]

    @property
    def errors(self) -> dict[str, str]:
        """Why the newest version in a folder was refused, by the folder's name."""
        return {slot.path.name: slot.error for slot in self._slots if slot.error}

    def get(self, name: str | None) -> LoadedModel:
        """The model of this name, the default one for None; `FieldError` when it is not served."""
        for model in self.models:
            if name is None or model.name == name:
                return model
        raise FieldError(f"{name!r} is not served; there are {', '.join(model.name for model in self.models)}", "model")

    async def refresh(self) -> None:
        """Reload the models that have changed. When a newer one does not load, it is refused and the old one stays."""
        async with self._refresh_lock:
            for slot in self._slots:
                await self._refresh_slot(slot)
            self._record_models()

    async def _refresh_slot(self, slot: ModelSlot) -> None:
        version: Version | None = None
        try:
            version = _version(slot.path)
            if version in (slot.version, slot.refused):
                return
            newer = await asyncio.to_thread(LoadedModel, slot.path, self._device)
            self._require_same_encoder(newer)
        except (InputError, GateRefused, OSError) as error:
            message = str(error)
            if message != slot.error:
                log.error("model refused", extra={"place": slot.path.name, "reason": message, "model": slot.model.name})
                self._metrics.reloads.labels("refused").inc()
            slot.error, slot.refused = message, version
            return
        log.info("model replaced", extra={"model": newer.name, "before": slot.model.name})
        self._metrics.reloads.labels("taken over").inc()
        slot.model, slot.version, slot.refused, slot.error = newer, version, None, None

    def _require_same_encoder(self, model: LoadedModel) -> None:
        """Raise `InputError` when a model reads vectors of another encoder than the first: the server loads only one encoder."""
        first = self._slots[0].model
        if model.recipe_id != first.recipe_id:
            own, expected = (f"{m.recipe.name} ({m.recipe_id})" for m in (model, first))
            raise InputError(f"{model.path} needs the encoder {own}, but {first.name} needs {expected}: serve it with another server")

    def _record_models(self) -> None:
        self._metrics.loaded_models.clear()
        for model in self.models:
            self._metrics.loaded_models.labels(model.name).set(1)


def _version(path: Path) -> Version:
    """The version of the model at `path`; `InputError` when there is none."""
    file = path.resolve() / "config.json"
    if not file.is_file():
        raise InputError(f"{path} has no config.json, so it is not a model: 'make demo' makes a champion, 'lvm train' a model")
    return str(file.parent), file.stat().st_mtime_ns
