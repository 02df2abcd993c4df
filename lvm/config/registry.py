"""Registries: what can be added from outside the package, one table a kind.

An entry is added by a decorator::

    @ARCHITECTURES.register("my_trunk")
    class MyTrunk(nn.Module): ...

Whatever lists entries (settings, commands, reports, figures) reads the registry, so an addition needs no other change. A registry
fills itself when it is first asked: it imports its home module, then the modules that the environment variable LVM_PLUGINS names,
separated by commas. The variable is inherited by every process that a flow starts.
"""

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from lvm.errors import InputError

T = TypeVar("T")

PLUGINS = "LVM_PLUGINS"
"""Environment variable: modules to import besides the package's own, separated by commas."""


class Registry(Generic[T]):
    """Entries by name, in the order in which they were registered.

    `kind` names an entry in error messages; `home` is the module whose import registers the package's own entries.
    """

    def __init__(self, kind: str, home: str) -> None:
        self.kind, self.home = kind, home
        self._entries: dict[str, T] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._filled = False

    def register(self, name: str, **about: Any) -> Callable[[T], T]:
        """Decorator that adds an entry; `about` are facts that whoever lists entries may want, see `about`.

        Raises `ValueError` when the name is taken by another entry.
        """

        def add(entry: T) -> T:
            standing = self._entries.get(name)
            if standing is not None and getattr(standing, "__qualname__", None) != getattr(entry, "__qualname__", None):
                raise ValueError(f"{self.kind} {name!r} is registered already, by {standing}")
            self._entries[name], self._about[name] = entry, about
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The entry of this name; `InputError` names those there are."""
        self.require(name)
        return self._entries[name]

    def require(self, name: str) -> str:
        """The name itself; raises `InputError`, with the names there are, when nothing is registered under it."""
        if name not in self.names():
            raise InputError(f"{self.kind} {name!r} is not known: there are {', '.join(self.names())}")
        return name

    def about(self, name: str) -> dict[str, Any]:
        """What was said of an entry when it was registered."""
        self.require(name)
        return self._about[name]

    def names(self) -> list[str]:
        """The names of all entries, in order."""
        self._fill()
        return list(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """Names and entries, in order."""
        self._fill()
        return list(self._entries.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __len__(self) -> int:
        return len(self.names())

    def _fill(self) -> None:
        """Import what registers entries, once."""
        if self._filled:
            return
        with self._lock:
            if self._filled:
                return
            importlib.import_module(self.home)
            import_plugins()
            self._filled = True


def import_plugins() -> None:
    """Import the modules that LVM_PLUGINS names; `InputError` when one cannot be imported."""
    for name in filter(None, (part.strip() for part in os.environ.get(PLUGINS, "").split(","))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"variable {PLUGINS}: module {name!r} cannot be imported ({error}): put its folder on PYTHONPATH") from error


# The entries' types stand where the entries do: settings rank below all of them and import none.
ARCHITECTURES: Registry[Any] = Registry("architecture", "lvm.models")
"""Trunks: from `ModelConfig` to a module that maps [B, T, dim] to [B, T, width], causally."""

LOSS_TERMS: Registry[Any] = Registry("loss term", "lvm.training.losses")
"""Terms of the loss: from what a batch gave to a scalar."""

BASELINES: Registry[Any] = Registry("baseline", "lvm.models.baselines")
"""Predictors without a network, which a model has to beat."""

GATES: Registry[Any] = Registry("gate", "lvm.gates")
"""Checks of data and models."""

SOURCES: Registry[Any] = Registry("source", "lvm.data.sources")
"""Kinds of places that documents come from."""

ENCODERS: Registry[Any] = Registry("encoder", "lvm.data.encoders")
"""Kinds of encoders."""
