"""One of three trainers is killed at a random step. The other two finish; it resumes and ends as if nothing had happened.

    python -m bench.reliability.kill_trainer --kills 20

Three models train at once as the tasks of a real flow. Each time one of them, in turn, is killed with SIGKILL
when its metrics show a step drawn at random. Afterwards every model must have bit for bit the metrics and the
weights of an undisturbed training.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from bench.reliability.corpus import small_corpus
from lvm.atomic_io import sha256_file
from lvm.config import read_settings
from lvm.data.encoders import load_encoder
from lvm.data.extract import extract
from lvm.reports.tables.table import Table
from tasks.diagnose import prepare_baselines
from tasks.tracking.runs import parent_run
from tasks.train import TrainedModel, finished_models, plan_training, train_model
from tasks.workspace import Workspace

ARCHITECTURES = ["lstm", "mamba2", "transformer"]
SETTINGS = ["model.width=64", "epochs=6", "threads=1", "sampler.stretches=4"]


@flow(name="train-three", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def train_three(root: Path, dataset: Path) -> list[TrainedModel]:
    """The training stage of `retrain-all` alone."""
    workspace = Workspace(root=root)
    plan = plan_training(ARCHITECTURES, read_settings(assignments=SETTINGS), "cpu", None)
    with parent_run(workspace, "train-three", {}, {}) as run:
        prepare_baselines(dataset, plan, "cpu")
        return finished_models([train_model.submit(workspace, dataset, arch, plan, run) for arch in ARCHITECTURES])


def events(out: Path) -> list[dict[str, Any]]:
    """The complete lines of a training's metrics."""
    file = out / "training" / "metrics.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def result(out: Path) -> tuple[Any, str]:
    """What must be the same: steps and metrics, and the digest of the weights."""
    return [(event["step"], event["metrics"]) for event in events(out)], sha256_file(out / "model.safetensors")


def trainer(out: Path) -> psutil.Process | None:
    """The process that trains into `out`."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "train" in words and str(out) in words:
            return process
    return None


def kill_at(root: Path, arch: str, step: int, done: list[int]) -> None:
    """Wait until the training of `arch` shows `step`, then kill its process; `done` receives the step that it had reached."""
    while True:
        for out in (root / "runs").glob(f"{arch}-*/"):
            seen = events(out)
            process = trainer(out) if seen and seen[-1]["step"] >= step else None
            if process:
                os.kill(process.pid, signal.SIGKILL)
                done.append(int(seen[-1]["step"]))
                return
        time.sleep(0.01)


def main() -> None:
    """Train once undisturbed, then `--kills` times with a kill; count the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = folder / "data"
        extract([str(small_corpus(folder / "addresses.jsonl", 24, 20))], data, load_encoder("minilm", "cpu"))
        expected = {model.arch: result(model.path) for model in train_three(folder / "undisturbed", data)}
        for number in range(kills):
            arch = ARCHITECTURES[number % 3]
            last = expected[arch][0][-1][0]
            step, done = random.randint(1, last - 1), list[int]()
            root = folder / str(number)
            threading.Thread(target=kill_at, args=(root, arch, step, done), daemon=True).start()
            for model in train_three(root, data):
                who = "killed" if model.arch == arch else "sibling"
                same = result(model.path) == expected[model.arch]
                outcomes[f"{who}: finished, {'the same metrics and weights' if same else 'OTHER metrics or weights'}"] += 1
            print(f"{number + 1}: {arch} killed at step {done or 'never'} of {last}", flush=True)
            outcomes["kills" if done else "kills that came too late"] += 1
    rows = [[name, str(count)] for name, count in outcomes.items()]
    print(Table(f"One of three trainers killed, {kills} times", ["what was found", "times"], rows).markdown())
    if any("OTHER" in name for name in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
