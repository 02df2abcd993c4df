"""The lines of metrics.jsonl: the record of a training run, of which MLflow holds a copy."""

import json
from pathlib import Path
from typing import Any

from lvm.atomic_io import explaining_full_disk, write_text
from lvm.errors import InputError

Event = dict[str, Any]
"""One line: step, total_steps, epoch, metrics (reproducible) and timing (not)."""


def append_event(file: Path, event: Event) -> None:
    """Add a line. NaN and infinity are refused: they are not JSON; `InputError` when the disk is full."""
    words = json.dumps(event, allow_nan=False) + "\n"
    with explaining_full_disk(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(words)


def event_order(event: Event) -> int:
    """Place of an event of metrics.jsonl among its run's: what was measured after so many steps comes before the step of that number."""
    return 2 * int(event["step"]) + any(name.startswith("train/") for name in event["metrics"])


def keep_events(file: Path, step: int) -> None:
    """Drop what was written after a state of `step` steps was saved: those steps are done again.

    Raises `InputError` when the file is missing.
    """
    if not file.is_file():
        raise InputError(f"{file} is missing, though its run has a state: give --fresh to start over")
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # the line that a kill cut short
            break
        if event_order(event) > 2 * step:
            break
        kept.append(line)
    write_text(file, "".join(line + "\n" for line in kept))
