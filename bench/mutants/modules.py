"""Which modules are mutated, and which tests judge each of them."""

from pathlib import Path

TARGETS = (
    "lvm/data/windows.py",
    "lvm/data/splits.py",
    "lvm/models/baselines*.py",
    "lvm/models/baselines/*.py",
    "lvm/models/closed_forms.py",
    "lvm/models/weighted_sums.py",
    "lvm/models/predictor.py",
    "lvm/models/ood.py",
    "lvm/training/calibrate.py",
    "lvm/training/losses.py",
    "lvm/training/sampler.py",
    "lvm/evaluation/*.py",
    "lvm/gates/*.py",
    "lvm/gates/data/*.py",
    "tasks/promote.py",
)
"""Patterns of the files whose mistakes would falsify a figure or a decision."""

OTHER_TESTS = {
    "lvm/data/windows.py": ("tests/lvm/evaluation/test_metrics.py",),
    "lvm/evaluation/intervals.py": ("tests/lvm/evaluation/test_metrics.py",),
    "lvm/evaluation/record.py": ("tests/lvm/evaluation/test_evaluate_checkpoint.py",),
    "lvm/models/baselines/fitting.py": tuple(f"tests/lvm/models/baselines/test_{name}.py" for name in ("fitted", "ridge", "whitening")),
    "lvm/models/closed_forms.py": ("tests/lvm/models/test_predictor.py",),
    "lvm/gates/skills.py": ("tests/lvm/gates/test_model.py", "tests/lvm/gates/test_nightly.py"),
    "lvm/gates/nightly.py": ("tests/lvm/gates/test_evaluate_night.py",),
    "lvm/gates/reencoding.py": ("tests/lvm/gates/test_evaluate_night.py",),
    "lvm/gates/result.py": ("tests/lvm/gates/test_stages.py", "tests/lvm/gates/data/test_data_gates.py"),
    "lvm/gates/data/order.py": ("tests/lvm/gates/data/test_chunk_order.py",),
    "lvm/gates/data/places.py": ("tests/lvm/gates/data/test_pairing.py",),
}
"""Test files beside those that the mirrored layout gives: where what a module promises is proved through another one."""


def chosen_modules(root: Path, only: list[str], without: list[str]) -> list[str]:
    """The files under mutation below `root`, as posix paths; `only` and `without` are parts of paths."""
    found = sorted({file.relative_to(root).as_posix() for pattern in TARGETS for file in root.glob(pattern) if file.name != "__init__.py"})
    kept = [name for name in found if (not only or any(part in name for part in only)) and not any(part in name for part in without)]
    if not kept:
        raise SystemExit(f"No module under mutation is called {only} without {without}; there are:\n" + "\n".join(found))
    return kept


def tests_of(root: Path, module: str) -> list[str]:
    """The test files of a/b/c.py: tests/a/b/test_c.py, test_c_*.py and `OTHER_TESTS`; if there are none, all in tests/a/b."""
    folder, stem = root / "tests" / Path(module).parent, Path(module).stem
    files = [*folder.glob(f"test_{stem}.py"), *folder.glob(f"test_{stem}_*.py"), *(root / name for name in OTHER_TESTS.get(module, ()))]
    files = files or list(folder.glob("test_*.py"))
    return sorted({file.relative_to(root).as_posix() for file in files})
