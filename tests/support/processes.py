"""Watching trainer processes: what they have written, whether they live."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """The first true value of `condition`, asked again and again."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def events(out: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's metrics.jsonl; none where there is no file yet."""
    file = out / "training" / "metrics.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def trainers(folder: Path) -> dict[int, str]:
    """Trainer processes that write below `folder`: pid to command line."""
    listed = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=1) for line in listed.splitlines())
    return {int(pid): command for pid, command in rows if f"--out {folder}" in command and "-m lvm train" in command}
