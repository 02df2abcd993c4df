"""The lines of metrics.jsonl: the record of a training run. MLflow has a copy of them."""

import json
from pathlib import Path
from typing import Any

from lvm.atomic_io import explaining_full_disk, write_text
from lvm.errors import InputError

Event = dict[str, Any]
"""One line: step, total_steps, epoch, metrics (the same in every repetition) and timing (not the same)."""


def append_event(file: Path, event: Event) -> None:
    """Append a line. Raises `ValueError` on NaN and infinity, which are not JSON, and `InputError` when the disk is full."""
    words = json.dumps(event, allow_nan=False) + "\n"
    with explaining_full_disk(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(words)


def event_order(event: Event) -> int:
    """Sort key of a run's events: a validation after N steps comes before the line of step N itself."""
    return 2 * int(event["step"]) + any(name.startswith("train/") for name in event["metrics"])


def keep_events(file: Path, step: int) -> None:
    """Drop the lines that were written after the state of step `step` was saved: those steps are done again.

    Raises `InputError` when the file is missing.
    """
    if not file.is_file():
        raise InputError(f"{file} is missing, though its run has a state: give --fresh to start over")
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # a kill cut this line short
            break
        if event_order(event) > 2 * step:
            break
        kept.append(line)
    write_text(file, "".join(line + "\n" for line in kept))
