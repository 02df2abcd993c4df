"""Mutants that no test can find, because they do what the original does: listed with the reason."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.mutants.mutations import Mutant

LIST = Path(__file__).with_name("equivalents.toml")


@dataclass(frozen=True)
class Equivalent:
    """A mutant, told by what it changes: numbers of mutants move with every line of code."""

    module: str
    function: str
    removed: str
    added: str
    reason: str


def known_equivalents() -> list[Equivalent]:
    """The list."""
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))["equivalent"]
    return [Equivalent(**{key: value.strip() for key, value in entry.items()}) for entry in entries]


def reasons(mutants: Iterable[Mutant], known: Iterable[Equivalent]) -> dict[str, str]:
    """Of those `mutants` that are listed, the reason by the mutant's name."""
    why = {_key(entry): entry.reason for entry in known}
    return {mutant.name: why[_key(mutant)] for mutant in mutants if _key(mutant) in why}


def unknown(mutants: Iterable[Mutant], known: Iterable[Equivalent]) -> list[Equivalent]:
    """Listed ones that are not among all `mutants` of their module: the code has changed, and they can go."""
    keys, modules = {_key(mutant) for mutant in mutants}, {mutant.module for mutant in mutants}
    return [entry for entry in known if entry.module in modules and _key(entry) not in keys]


def _key(change: Mutant | Equivalent) -> tuple[str, str, str, str]:
    return change.module, change.function, change.removed, change.added
