"""The mutants of a module: what each of them changes."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import libcst as cst
from mutmut.mutation.file_mutation import Mutation, create_mutations, deep_replace, group_by_top_level_node
from mutmut.mutation.trampoline_templates import mangle_function_name
from mutmut.utils.format_utils import get_mutant_name


@dataclass(frozen=True)
class Mutant:
    """One small mistake."""

    name: str
    """As mutmut calls it: `lvm.data.splits.x_split_of__mutmut_3`."""
    module: str
    """The file: `lvm/data/splits.py`."""
    function: str
    """`split_of`, or `Class.method`."""
    prose: bool
    """Whether it only changes the wording of a sentence; no test should hold that."""
    _code: tuple[cst.Module, cst.FunctionDef, Mutation] = field(repr=False)

    @cached_property
    def difference(self) -> tuple[str, str]:
        """The lines that it takes away and those that it puts there, without indentation."""
        parsed, function, mutation = self._code
        mutated = deep_replace(function, mutation.original_node, mutation.mutated_node)
        assert isinstance(mutated, cst.FunctionDef)
        before, after = (parsed.code_for_node(node).splitlines() for node in (function, mutated))
        lines = list(difflib.ndiff(before, after))
        removed, added = ("\n".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in ("- ", "+ "))
        return removed, added


def mutants_of(folder: Path, module: str) -> list[Mutant]:
    """All mutants of `folder / module`, in mutmut's order and by its names."""
    parsed, mutations, _, _ = create_mutations(module, (folder / module).read_text(encoding="utf-8"))
    grouped = group_by_top_level_node(mutations)
    found = []
    for node, owner in _functions(parsed):
        function = f"{owner}.{node.name.value}" if owner else node.name.value
        mangled = mangle_function_name(name=node.name.value, class_name=owner)
        for number, mutation in enumerate(grouped.get(node, ()), start=1):
            name = get_mutant_name(Path(module), f"{mangled}__mutmut_{number}")
            found.append(Mutant(name, module, function, _prose(mutation.original_node), (parsed, node, mutation)))
    return found


def _functions(parsed: cst.Module) -> Iterator[tuple[cst.FunctionDef, str | None]]:
    """Every function of the module, and every method with the name of its class."""
    for statement in parsed.body:
        if isinstance(statement, cst.FunctionDef):
            yield statement, None
        elif isinstance(statement, cst.ClassDef):
            yield from ((method, statement.name.value) for method in statement.body.body if isinstance(method, cst.FunctionDef))


def _prose(node: cst.CSTNode) -> bool:
    """A text with a space in it is a sentence for people, not a name."""
    return isinstance(node, cst.SimpleString) and " " in node.value.strip("\"' ")
