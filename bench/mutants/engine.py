"""Runs mutants by mutmut: tests are imported once, and a process is forked for each mutant.

`mutmut run` would do the same, but can neither be given a draw nor a time limit, and lets every test judge every mutant
that it meets: a mistake in a loss would count as found because some training of another test file went astray.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from math import ceil
from multiprocessing import Pool
from queue import Empty

from mutmut.__main__ import create_mutants
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths
from mutmut.utils.format_utils import mangled_name_from_mutant_name
from mutmut.workers.isolation import get_mutant_runner

from bench.mutants.mutations import Mutant
from bench.mutants.report import NOTICED

CONTROL = "no_module.x_"

SLOWEST, SPARE = 5, 20.0
"""A mutant may take this many times as long as its tests do, and this many seconds more (imports, fixtures), before it counts as hung."""


@dataclass(frozen=True)
class Trial:
    """What the tests of one file did without any mutant."""

    passed: bool
    seconds: dict[str, float]
    """By test."""
    tests: dict[str, set[str]]
    """By function, those that run it."""


def write_mutants(workers: int) -> None:
    """Write all mutants below ./mutants; the present folder is the project's copy."""
    set_mutant_under_test("mutant_generation")
    with open("mutants.log", "w", encoding="utf-8") as log, redirect_stdout(log):
        copy_src_dir()
        copy_also_copy_files()
        setup_source_paths()
        create_mutants(workers)


def try_tests(files: Sequence[str], workers: int) -> list[str]:
    """Run the test files without a mutant, a process for each, and remember which test runs which function.

    Returns:
        The files whose tests fail even so.
    """
    failed = []
    with Pool(workers, maxtasksperchild=1) as pool:
        for file, trial in zip(files, pool.imap(_try_file, files), strict=True):
            state().duration_by_test.update(trial.seconds)
            for function, tests in trial.tests.items():
                state().tests_by_mangled_function_name[function] |= tests
            if not trial.passed:
                failed.append(file)
    return failed


def _try_file(file: str) -> Trial:
    """In a process of its own: `stats` makes every mutable function note that it runs."""
    set_mutant_under_test("stats")
    with open(file.replace("/", ".") + ".log", "w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        code = PytestRunner().run_stats(tests=[file])
    return Trial(code == 0, dict(state().duration_by_test), dict(state().tests_by_mangled_function_name))


def judges(mutant: Mutant, tests: Sequence[str]) -> list[str]:
    """The tests of the files `tests` that run the mutated function, the fastest first."""
    found = state().tests_by_mangled_function_name.get(mangled_name_from_mutant_name(mutant.name), set())
    return sorted((t for t in found if t.split("::")[0] in tests), key=lambda t: (state().duration_by_test[t], t))


def controls(files: Iterable[str]) -> list[tuple[str, list[str]]]:
    """For each test file, a mutant that changes nothing and all tests of the file: it must survive, or no kill means anything."""
    found = []
    for file in files:
        tests = [test for test in state().duration_by_test if test.split("::")[0] == file]
        found.append((f"{CONTROL}{file.replace('/', '_')}__mutmut_0", tests))
    return found


def run(work: Iterable[tuple[str, list[str]]], workers: int, seconds: float) -> dict[str, str]:
    """Run each mutant, given by its name, against its tests, in the given order, until the time is up.

    Returns:
        By the names of those that were run: killed, timeout, survived, no tests, segfault or another word of mutmut's.
    """
    runner = get_mutant_runner(workers)
    end = time.monotonic() + seconds
    statuses: dict[str, str] = {}
    submitted = 0

    def take_one() -> None:
        result = runner.wait_for_result(max(0.1, end - time.monotonic()))
        status = statuses[result.mutant_name] = status_by_exit_code[result.exit_code]
        told = status in NOTICED or result.mutant_name.startswith(CONTROL)
        print("." if told else f"\n{status}: {result.mutant_name}", end="" if told else "\n", flush=True)

    runner.startup()
    try:
        for name, tests in work:
            while not runner.has_capacity():
                take_one()
            expected = sum(state().duration_by_test[test] for test in tests)
            runner.submit(name, tests, ceil(2 * (SLOWEST * expected + SPARE)), expected)
            submitted += 1
        runner.signal_work_complete()
        while len(statuses) < submitted:
            take_one()
    except Empty:
        runner.stop_all_workers()
    finally:
        runner.shutdown()
        print()
    return statuses
