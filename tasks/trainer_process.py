"""A trainer in its own process: started, watched, its metrics relayed to MLflow, its exit code turned into an error."""

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

from lvm.atomic_io import write_text
from lvm.errors import GateRefused, InputError
from tasks.tracking.host_metrics import HostMetrics
from tasks.tracking.relay import MetricsRelay

RELAY_SECONDS = 2.0
PATIENCE_SECONDS = 900.0
"""How long a finished training waits for a store that does not accept its metrics."""


class TrainerFailed(RuntimeError):
    """The trainer ended by itself, for a reason that would stop another attempt too."""


async def worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Retry a trainer that was killed: it resumes. Bad input, a diverging loss and a failed gate would only repeat."""
    return not isinstance(await state.aresult(raise_on_failure=False), InputError | GateRefused | TrainerFailed)


def metrics_file(out: Path) -> Path:
    """The metrics of the training into `out`, a JSON line for each event."""
    return out / "training" / "metrics.jsonl"


def last_step(out: Path) -> int:
    """Step of its last event. What is measured after the training is logged at this step, at the end of the curves."""
    return int(json.loads(metrics_file(out).read_text(encoding="utf-8").splitlines()[-1])["step"])


def train_into(out: Path, run_id: str, command: Sequence[object], settings: str, threads: int, fresh: bool) -> None:
    """Run `lvm COMMAND --out OUT` from within a task, with its metrics relayed to the MLflow run `run_id`.

    `settings` is the text of a YAML file for `--config`; it is written beside `out`. The trainer continues from what an
    earlier attempt left in `out`. `fresh` clears that, but only in a task's first attempt, so that a retry can continue.
    """
    if fresh and task_run.run_count == 1:
        shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    config = out.with_name(out.name + ".settings.yaml")
    write_text(config, settings)
    words = [sys.executable, "-m", "lvm", *map(str, command), "--out", str(out), "--config", str(config)]
    relay = MetricsRelay(metrics_file(out), run_id, HostMetrics())
    run_trainer([*words, "--resume", "--until-stdin-closes"], out, threads, relay)


def run_trainer(command: list[str], out: Path, threads: int, relay: MetricsRelay) -> None:
    """Run a trainer to its end and relay its metrics.

    The trainer reads from a pipe of this process and ends when the pipe closes, so it never outlives its flow. Its
    output goes to the file `out`.log. When it fails, the last lines of its output become the message of the error:
    `InputError` for refused input, `GateRefused` for a failed gate, `RuntimeError` when it was killed, else `TrainerFailed`.
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
            process.kill()  # no effect if it has ended
            process.wait()
            if process.stdin:  # this also ends the processes that it started, one for each device
                process.stdin.close()
    relay_the_rest(relay, out)
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        words = list(dict.fromkeys(lines))[-3:]  # with several processes, each prints the same reason
        message = f"trainer ended with {process.returncode}: {' '.join(words)} (whole log: {log})"
        if process.returncode < 0:
            raise RuntimeError(message)  # a signal: the next attempt resumes
        refusals = {kind.exit_code: kind for kind in (InputError, GateRefused)}
        raise refusals.get(process.returncode, TrainerFailed)(message)


def relay_the_rest(relay: MetricsRelay, out: Path) -> None:
    """Send the trainer's last events. Waits while MLflow is down; `TrainerFailed` after `PATIENCE_SECONDS`."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not relay.relay_or_wait():
        if time.monotonic() > end:
            raise TrainerFailed(
                f"MLflow accepted no metrics for {PATIENCE_SECONDS:.0f} s; they are kept in {metrics_file(out)}: run the flow again"
            )
        time.sleep(RELAY_SECONDS)
