"""Draw mutants of the modules that decide what a figure is worth, and see whether their tests notice (`make mutants`).

    python -m bench.mutants.run --draw 400 --seed 0

The draw is always of all modules, so that it can be run in parts: `--only gates/` runs those of the 400 that are in gates.
"""

import argparse
import os
import random
import shutil
import sys
import time
from pathlib import Path

from bench.mutants.copy import copy_project
from bench.mutants.equivalents import gone, known_equivalents, reasons
from bench.mutants.modules import chosen_modules, tests_of
from bench.mutants.mutations import Mutant, mutants_of
from bench.mutants.report import share, survivors, table, words

ROOT = Path(__file__).parents[2]
ENOUGH = 0.95
"""The share of the drawn mutants that the tests must notice."""
REFUSED = 3
STARTS_PROCESSES = ["tests/lvm/evaluation/test_looks.py::test_processes_that_look_at_once_lose_no_count"]
"""Tests that cannot run in a worker, which may have no processes of its own."""


def parsed_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", type=int, default=400, help="how many mutants to draw of all modules (default: 400); 0 takes all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="run those of modules whose path has one of these in it")
    parser.add_argument("--without", nargs="+", default=[], metavar="PART", help="but not these")
    parser.add_argument("--deselect", nargs="+", default=[], metavar="TEST", help="tests to leave out, as pytest's --deselect does")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--minutes", type=float, default=240.0, help="stop after this time and judge what was run (default: 240)")
    parser.add_argument("--shared", type=Path, help="build/mutants/shared of another run, not to make the tests' dataset and models anew")
    return parser.parse_args()


def new_copy(folder: Path, modules: list[str], mutated: list[str], files: list[str], options: argparse.Namespace) -> Path:
    """The project's copy in the emptied `folder`, with the environment that its tests need."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("copy", "tmp"):
        (folder / name).mkdir(parents=True)
    if options.shared:
        shutil.copytree(options.shared, folder / "shared")
    copy_project(ROOT, folder / "copy", modules, mutated, files, [*STARTS_PROCESSES, *options.deselect])
    os.environ |= {
        "LVM_TESTS_SHARED": str(folder / "shared"),
        "PYTHONPATH": os.pathsep.join([str(folder / "copy" / "mutants"), os.environ.get("PYTHONPATH", "")]),
        "TMPDIR": str(folder / "tmp"),
        "CUDA_VISIBLE_DEVICES": "",  # a forked process cannot use a GPU
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return folder / "copy"


def draw(copy: Path, modules: list[str], count: int, seed: int) -> list[Mutant]:
    """The mutants drawn of all modules, and a word on what they were drawn from.

    Each has a random number that depends on its name and the seed alone; the lowest are drawn. So a change of one function changes the
    draw of others hardly at all, and parts that were run at different commits are parts of about the same draw.
    """
    everything = [mutant for module in modules for mutant in mutants_of(copy, module)]
    meant = [mutant for mutant in everything if not mutant.prose]
    meant.sort(key=lambda mutant: random.Random(f"{seed} {mutant.name}").random())
    drawn = meant[: count or len(meant)]
    print(f"{len(everything)} mutants of all modules; {len(everything) - len(meant)} only change the wording of a sentence.")
    print(f"Drawn with seed {seed}: {len(drawn)} of the other {len(meant)}.", flush=True)
    for entry in gone(everything, known_equivalents()):
        print(f"bench/mutants/equivalents.toml lists a mutant that is no more: {entry}")
    return drawn


def main() -> None:
    """Exits with 3 when too many mutants survive."""
    options = parsed_arguments()
    start = time.monotonic()
    end = start + 60 * options.minutes
    modules, mutated = chosen_modules(ROOT, [], []), chosen_modules(ROOT, options.only, options.without)
    judged_by = {module: tests_of(ROOT, module) for module in mutated}
    if untested := [module for module, tests in judged_by.items() if not tests]:
        raise SystemExit(f"No test file for {', '.join(untested)}: add it to OTHER_TESTS in bench/mutants/modules.py")
    files = sorted({test for tests in judged_by.values() for test in tests})
    os.chdir(
        copy := new_copy(ROOT / "build" / "mutants", modules, mutated, files, options)
    )  # mutmut reads and writes in the present folder

    from bench.mutants import engine

    drawn = [mutant for mutant in draw(copy, modules, options.draw, options.seed) if mutant.module in mutated]
    equivalent = reasons(drawn, known_equivalents())
    engine.write_mutants(options.workers)
    if failed := engine.try_tests(files, options.workers):
        raise SystemExit(f"These fail without any mutant: {', '.join(failed)}; their output is in {copy}/*.log")
    print(f"{len(files)} test files pass without a mutant, {time.monotonic() - start:.0f} s after the start.", flush=True)

    left = [(mutant.name, engine.judges(mutant, judged_by[mutant.module])) for mutant in drawn if mutant.name not in equivalent]
    statuses = engine.run([*engine.controls(files), *left], options.workers, end - time.monotonic())
    controls = {name: statuses.pop(name) for name in list(statuses) if name.startswith(engine.CONTROL)}
    if set(controls.values()) - {"survived"}:
        raise SystemExit(f"Tests fail where nothing was changed, so that no kill means anything: {controls}")
    print(f"{words(statuses)}, {time.monotonic() - start:.0f} s after the start.\n")
    print(table(drawn, statuses, equivalent))
    print(survivors(drawn, statuses))
    sys.exit(0 if share(statuses) >= ENOUGH else REFUSED)


if __name__ == "__main__":
    main()
