"""A trainer in a process of its own: started, watched, its metrics relayed, its end understood."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.tasks import Task

from lvm.errors import GateRefused, InputError
from tasks.tracking.host_metrics import HostMetrics
from tasks.tracking.relay import MetricsRelay

RELAY_SECONDS = 2.0
PATIENCE_SECONDS = 900.0
"""How long a finished training waits for a store that does not take its metrics."""


class TrainerFailed(RuntimeError):
    """The trainer ended by itself, for a reason that another attempt would meet again."""


async def worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """A trainer that was killed resumes; bad input stays bad, a loss that diverged diverges, a gate refuses again."""
    return not isinstance(await state.aresult(raise_on_failure=False), InputError | GateRefused | TrainerFailed)


def metrics_file(out: Path) -> Path:
    """The record of the training into `out`."""
    return out / "training" / "metrics.jsonl"


def last_step(out: Path) -> int:
    """Step of its last event, so that what is measured afterwards stands at the end of its curves."""
    return int(json.loads(metrics_file(out).read_text(encoding="utf-8").splitlines()[-1])["step"])


def train_into(out: Path, run_id: str, command: Sequence[object], settings: Sequence[str], threads: int, fresh: bool) -> None:
    """Run `lvm COMMAND` into the folder `out` from within a task, its metrics relayed to the MLflow run.

    Goes on from what an earlier attempt left there. `fresh` clears it, but only in a task's first
    attempt: a retry goes on from what the first one left.
    """
    if fresh and task_run.run_count == 1:
        shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "lvm", *map(str, command), "--out", str(out), *(f"--set={setting}" for setting in settings)]
    relay = MetricsRelay(metrics_file(out), run_id, HostMetrics())
    run_trainer([*words, "--resume", "--until-stdin-closes"], out, threads, relay)


def run_trainer(command: list[str], out: Path, threads: int, relay: MetricsRelay) -> None:
    """Run a trainer to its end, relaying its metrics; raise with its last words when it fails.

    It holds the reading end of a pipe from this process and ends when the pipe does, so it never
    outlives its flow. What it prints goes to a file beside `out`. Raises `InputError` when it
    refuses its input, `GateRefused` when a gate stopped it, `TrainerFailed` when it fails otherwise, `RuntimeError`
    when it was killed.
    """
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_RUN_ID"} | {"OMP_NUM_THREADS": str(threads)}
    log = out.with_name(out.name + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            while True:
                try:
                    process.wait(RELAY_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    relay.relay_or_wait()
        finally:
            process.kill()  # does nothing to one that has ended
            process.wait()
            if process.stdin:  # the end of those that it started, one a device
                process.stdin.close()
    relay_the_rest(relay, out)
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        words = list(dict.fromkeys(lines))[-3:]  # of several processes each says why it refuses
        message = f"trainer ended with {process.returncode}: {' '.join(words)} (whole log: {log})"
        if process.returncode < 0:
            raise RuntimeError(message)  # a signal: the next attempt goes on
        refusals = {kind.exit_code: kind for kind in (InputError, GateRefused)}
        raise refusals.get(process.returncode, TrainerFailed)(message)


def relay_the_rest(relay: MetricsRelay, out: Path) -> None:
    """Send what the trainer wrote last, waiting for MLflow where it is down; `TrainerFailed` when it stays so."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not relay.relay_or_wait():
        if time.monotonic() > end:
            raise TrainerFailed(
                f"MLflow took no metrics for {PATIENCE_SECONDS:.0f} s; they are kept in {metrics_file(out)}: run the flow again"
            )
        time.sleep(RELAY_SECONDS)
