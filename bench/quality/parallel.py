"""Trainings side by side, each in a process of its own (`bench.quality.train_and_evaluate`)."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lvm.atomic_io import write_json
from lvm.data.manifest import read_manifest


def side_by_side(
    dataset: Path, work: Path, devices: Sequence[str], jobs: Mapping[str, Sequence[str]], at_once: int, commit: str
) -> dict[str, dict[str, Any]]:
    """Run the jobs, words of `bench.quality.train_and_evaluate` by name, `at_once` at a time on each device; what each printed.

    A failure ends everything. What has ended stands in `work`, and is taken from there when the same is asked for again.
    """
    digest = read_manifest(dataset).digest
    free: SimpleQueue[str] = SimpleQueue()
    for device in [*devices] * at_once:
        free.put(device)

    def run(name: str) -> dict[str, Any]:
        record, asked = work / f"{name}.json", {"commit": commit, "dataset": digest, "words": [*jobs[name]]}
        if record.exists() and (kept := json.loads(record.read_text(encoding="utf-8")))["asked"] == asked:
            return dict(kept["found"])
        device = free.get()
        words = [sys.executable, "-m", "bench.quality.train_and_evaluate", str(dataset), str(work / name), "--device", device, *jobs[name]]
        done = subprocess.run(words, capture_output=True, text=True)
        free.put(device)
        if done.returncode:
            raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        skills = {
            at: {m: value for m, value in summary["metrics"].items() if m.startswith("skill")} for at, summary in split_of(found).items()
        }
        shown = "; ".join(f"{at}: " + ", ".join(f"{value['value']:+.4f}" for value in skill.values()) for at, skill in skills.items())
        print(f"{name}: {found['seconds']:.0f} s, kept epoch {found['kept_epoch']:.0f} of {found['epochs']}; {shown}", flush=True)
        found["command"] = f"python -m bench.quality.train_and_evaluate DATASET OUT {' '.join(jobs[name])}"
        write_json(record, {"asked": asked, "found": found})
        return found

    with ThreadPoolExecutor(at_once * len(devices)) as pool:
        return dict(zip(jobs, pool.map(run, jobs), strict=True))


def split_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluations by context length, whichever split they are of."""
    evaluations: dict[str, Any] = found.get("test") or found["val"]
    return evaluations
