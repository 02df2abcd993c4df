"""A copy of the project in which every function can be mutated."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import libcst as cst
import libcst.matchers as m

COPIED = ("lvm", "tasks", "tests", "docs", "pyproject.toml")

CONFIG = """
[tool.mutmut]
source_paths = ["lvm", "tasks"]
only_mutate = {modules!r}
pytest_add_cli_args = ["-p", "no:cacheprovider", "--hypothesis-seed=0", {deselected}]
pytest_add_cli_args_test_selection = {tests!r}
process_isolation = "forkserver"
also_copy = ["docs"]
use_git_change_detection = false
track_dependencies = false
"""


class PlainFunctions(cst.CSTTransformer):
    """Writes `@d` above `def f` as `f = d(f)` below it, which means the same.

    mutmut mutates no decorated function: it cannot know what a decorator does with the mutants. Here decorators register
    (every gate, loss and baseline has one) or wrap, and would leave the most important functions without a mutant.
    """

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.BaseStatement | cst.FlattenSentinel:
        """Take the decorators off, but those without which the class means something else."""
        decorators = [decorator.decorator for decorator in updated_node.decorators]
        if not decorators or any(m.matches(d, m.Name("overload") | m.Name("classmethod") | m.Name("staticmethod")) for d in decorators):
            return updated_node
        value: cst.BaseExpression = updated_node.name
        for decorator in reversed(decorators):
            value = cst.Call(decorator, [cst.Arg(value)])
        applied = cst.Assign([cst.AssignTarget(updated_node.name)], value)
        return cst.FlattenSentinel([updated_node.with_changes(decorators=[]), cst.SimpleStatementLine([applied])])


def copy_project(
    root: Path, copy: Path, modules: Iterable[str], mutated: Iterable[str], tests: Iterable[str], deselect: Iterable[str]
) -> None:
    """Write to the new folder `copy` what the tests need, `modules` without decorators, and mutmut's configuration for those `mutated`."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    for module in modules:
        code = cst.parse_module((root / module).read_text(encoding="utf-8"))
        (copy / module).write_text(code.visit(PlainFunctions()).code, encoding="utf-8")
    deselected = ", ".join(f'"--deselect", {name!r}' for name in deselect)
    with (copy / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(CONFIG.format(modules=list(mutated), tests=list(tests), deselected=deselected))
