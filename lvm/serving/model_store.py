"""The models that a server holds: the champion and any beside it, each taken over anew when its folder changes."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from lvm.errors import GateRefused, InputError
from lvm.serving.loaded_model import Served
from lvm.serving.metrics import Measures
from lvm.serving.requests import FieldError

log = logging.getLogger("lvm.serving")


Stamp = tuple[str, int]


@dataclass
class Place:
    """A folder or a link to one, and what was last taken over from it."""

    path: Path
    served: Served
    stamp: Stamp
    refused: Stamp | None = None
    """A newer state that did not load; it is not tried again until it changes."""

    error: str | None = None


class Models:
    """Loaded models by name; the first is the default."""

    def __init__(self, paths: list[Path], device: torch.device, measures: Measures) -> None:
        """Load all; raises `InputError` or `GateRefused` when one does not load."""
        self._device, self._measures = device, measures
        self._refreshing = asyncio.Lock()
        self._places: list[Place] = []
        for path in paths:
            stamp = _stamp(path)
            if all(stamp[0] != place.stamp[0] for place in self._places):
                self._places.append(Place(path, Served(path, device), stamp))
                self._require_encoder(self._places[-1].served)
        self._tell()

    @property
    def served(self) -> list[Served]:
        """All, the default first."""
        return [place.served for place in self._places]

    @property
    def errors(self) -> dict[str, str]:
        """Places whose newest state was refused, and why."""
        return {place.path.name: place.error for place in self._places if place.error}

    def get(self, name: str | None) -> Served:
        """The model of this name, the default for None; `FieldError` when it is not served."""
        for served in self.served:
            if name is None or served.name == name:
                return served
        raise FieldError(f"{name!r} is not served; there are {', '.join(s.name for s in self.served)}", "model")

    async def refresh(self) -> None:
        """Take over what has changed. A model that does not load is refused, and the one before it goes on."""
        async with self._refreshing:
            for place in self._places:
                stamp: Stamp | None = None
                try:
                    stamp = _stamp(place.path)
                    if stamp in (place.stamp, place.refused):
                        continue
                    newer = await asyncio.to_thread(Served, place.path, self._device)
                    self._require_encoder(newer)
                except (InputError, GateRefused, OSError) as error:
                    message = str(error)
                    if message != place.error:
                        log.error("model refused", extra={"place": place.path.name, "reason": message, "model": place.served.name})
                        self._measures.reloads.labels("refused").inc()
                    place.error, place.refused = message, stamp
                    continue
                log.info("model taken over", extra={"model": newer.name, "before": place.served.name})
                self._measures.reloads.labels("taken over").inc()
                place.served, place.stamp, place.refused, place.error = newer, stamp, None, None
            self._tell()

    def _require_encoder(self, newer: Served) -> None:
        """Raise `InputError` when a model reads vectors of another encoder than the first: the server loads but one."""
        first = self._places[0].served
        if newer.recipe_id != first.recipe_id:
            encoders = f"the encoder {newer.recipe.name} ({newer.recipe_id}), {first.name} that of {first.recipe.name} ({first.recipe_id})"
            raise InputError(f"{newer.path} reads {encoders}: start a server of its own for it")

    def _tell(self) -> None:
        self._measures.served.clear()
        for served in self.served:
            self._measures.served.labels(served.name).set(1)


def _stamp(path: Path) -> Stamp:
    """Changes when the folder does, or the link to it; `InputError` when there is no model."""
    file = path.resolve() / "config.json"
    if not file.is_file():
        raise InputError(f"{path} holds no config.json: not a model; 'make demo' makes a champion, 'lvm train' a model")
    return str(file.parent), file.stat().st_mtime_ns
