"""What a run found, as text."""

from collections import Counter
from collections.abc import Mapping, Sequence

from bench.mutants.mutations import Mutant

NOTICED = ("killed", "timeout")
"""A test failed, or never came to an end."""


def share(statuses: Mapping[str, str]) -> float:
    """Of the mutants that were run and are no equivalents, the share that a test noticed; 0 of none."""
    return sum(status in NOTICED for status in statuses.values()) / max(len(statuses), 1)


def table(drawn: Sequence[Mutant], statuses: Mapping[str, str], equivalent: Mapping[str, str]) -> str:
    """A line a module. `statuses` has the mutants that were run; `equivalent` those that count neither way."""
    lines = [f"{'module':40} {'drawn':>6} {'equivalent':>10} {'not run':>8} {'noticed':>8} {'survived':>9} {'share':>7}"]
    for module in [*sorted({mutant.module for mutant in drawn}), "all"]:
        names = {mutant.name for mutant in drawn if module in (mutant.module, "all")}
        run = {name: statuses[name] for name in names & statuses.keys()}
        left_out, not_run = len(names & equivalent.keys()), len(names - equivalent.keys() - run.keys())
        noticed = sum(status in NOTICED for status in run.values())
        rate = f"{share(run):.1%}" if run else "-"
        lines.append(f"{module:40} {len(names):6} {left_out:10} {not_run:8} {noticed:8} {len(run) - noticed:9} {rate:>7}")
    return "\n".join(lines)


def survivors(drawn: Sequence[Mutant], statuses: Mapping[str, str]) -> str:
    """Every mutant that no test noticed, with what it changes."""
    lines = []
    for mutant in sorted(drawn, key=lambda mutant: mutant.name):
        if (status := statuses.get(mutant.name, "killed")) not in NOTICED:
            lines.append(f"\n{mutant.module}: {mutant.function} ({status})")
            lines += [f"  {sign} {line}" for sign, text in zip("-+", mutant.difference, strict=True) for line in text.splitlines()]
    return "\n".join(lines)


def words(statuses: Mapping[str, str]) -> str:
    """How often each status was given."""
    return ", ".join(f"{count} {status}" for status, count in Counter(statuses.values()).most_common())
