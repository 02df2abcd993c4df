"""Mutants that no test can find, because they do what the original does: listed with the reason."""

import tomllib
from collections.abc import Collection
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
    return [Equivalent(**entry | {"added": added}) for entry in entries for added in entry["added"]]


def reasons(mutants: Collection[Mutant], known: Collection[Equivalent]) -> dict[str, str]:
    """Of those `mutants` that are listed, the reason by the mutant's name."""
    listed = {(entry.module, entry.function): {} for entry in known}
    for entry in known:
        listed[entry.module, entry.function][entry.removed, entry.added] = entry.reason
    candidates = [mutant for mutant in mutants if (mutant.module, mutant.function) in listed]
    why = {mutant.name: listed[mutant.module, mutant.function].get(mutant.difference) for mutant in candidates}
    return {name: reason for name, reason in why.items() if reason}


def gone(mutants: Collection[Mutant], known: Collection[Equivalent]) -> list[Equivalent]:
    """Listed ones that are not among all `mutants` of their module: the code has changed, and they can go."""
    modules, functions = {mutant.module for mutant in mutants}, {(entry.module, entry.function) for entry in known}
    there = {(m.module, m.function, *m.difference) for m in mutants if (m.module, m.function) in functions}
    return [e for e in known if e.module in modules and (e.module, e.function, e.removed, e.added) not in there]
