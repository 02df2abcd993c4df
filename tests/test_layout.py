"""The layout of the project: one direction of imports, a folder a stage, small files and functions, tests that stand alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = ("lvm", "tasks", "flows", "bench")

RANKS = [
    {"config", "errors", "devices", "atomic_io"},
    {"data"},
    {"models"},
    {"evaluation"},
    {"gates"},
    {"training", "reports"},
    {"decoding"},
    {"serving", "migration"},
    {"cli"},
]
"""The packages and modules of `lvm`, the lowest first. One may import from its own and from lower ranks; two of one rank, nothing."""

RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
MODULES = RANKS[0]
"""What is in `lvm` itself, beside the folders."""

LONGEST_FUNCTION, LONGEST_FILE = 50, 400


def files(*trees: str) -> list[Path]:
    return sorted(file for tree in trees for file in (ROOT / tree).rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Every module that the file imports, at the top or within a function; of `from a import b` it is a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_lvm_holds_a_folder_a_stage_and_four_modules() -> None:
    found = {path.stem for path in (ROOT / "lvm").iterdir() if path.suffix == ".py" or (path.is_dir() and list(path.rglob("*.py")))}
    assert found - {"__init__", "__main__"} == RANK.keys()
    loose = {path.stem for path in (ROOT / "lvm").glob("*.py")}
    assert loose - {"__init__", "__main__"} <= MODULES


def test_no_stage_imports_a_later_one() -> None:
    upwards = []
    for file in files("lvm"):
        own = file.relative_to(ROOT / "lvm").parts[0].removesuffix(".py")
        for module in imports(file):
            parts = module.split(".")
            if own not in RANK or parts[0] != "lvm" or len(parts) < 2 or parts[1] == own or parts[1] not in RANK:
                continue
            lower = RANK[parts[1]] < RANK[own] or RANK[own] == RANK[parts[1]] == 0
            if not lower:
                upwards.append(f"{named(file)} imports {module}")
    assert upwards == []


@pytest.mark.parametrize(
    ("tree", "forbidden"),
    [
        ("lvm", {"prefect", "mlflow", "ray", "tasks", "flows", "bench", "tests"}),
        ("tasks", {"flows", "bench", "tests"}),
        ("flows", {"bench", "tests"}),
    ],
)
def test_no_import_leads_from_the_library_to_what_orchestrates_it(tree: str, forbidden: set[str]) -> None:
    found = {f"{named(file)} imports {module}" for file in files(tree) for module in imports(file) if module.split(".")[0] in forbidden}
    assert found == set()


def test_tasks_use_no_command_line() -> None:
    assert [named(file) for file in files("tasks") if any(module.startswith("lvm.cli") for module in imports(file))] == []


def test_no_function_is_longer_than_fifty_lines() -> None:
    long = []
    for file in files(*TREES):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{named(file)}: {node.name} has {lines} lines")
    assert long == []


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    lengths = {named(file): len(file.read_text(encoding="utf-8").splitlines()) for file in files(*TREES, "tests")}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_test_module_imports_another() -> None:
    found = []
    for file in files("tests"):
        for module in imports(file):
            if module.startswith("tests.") and any(part.startswith("test_") for part in module.split(".")[:-1]):
                found.append(f"{named(file)} imports {module}")
    assert found == []


def test_no_two_classes_of_the_library_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for file in files("lvm", "tasks", "flows"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(named(file))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}
