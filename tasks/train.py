"""Stage `train`: one trainer process a model, on a leased device."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.tasks import Task
from pydantic import BaseModel, ConfigDict

from lvm.config import train_config
from lvm.corpus.dataset import read_manifest
from lvm.devices import lease
from lvm.durable import digest_json
from lvm.errors import InputError
from tasks.tracking import MetricsRelay, child_run, connect, failing, set_tags
from tasks.workspace import Workspace

RELAY_SECONDS = 2.0


class TrainedModel(BaseModel):
    """A finished training."""

    model_config = ConfigDict(frozen=True)

    arch: str
    path: Path
    run_id: str


class TrainerFailed(RuntimeError):
    """The trainer ended by itself, for a reason that another attempt would meet again."""


async def _worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """A trainer that was killed resumes; bad input stays bad, and a loss that diverged diverges."""
    return not isinstance(await state.aresult(raise_on_failure=False), InputError | TrainerFailed)


@task(retries=2, retry_delay_seconds=1, retry_condition_fn=_worth_retrying, task_run_name="train-{arch}")
def train_model(
    workspace: Workspace, dataset: Path, arch: str, settings: list[str], places: list[str], parent: str, flow_run_id: str, fresh: bool
) -> TrainedModel:
    """Train one architecture; goes on from its last checkpoint, reuses a finished run.

    `places` are the devices it may lease. The trainer holds the reading end of a pipe from this
    process and ends when the pipe does, so it never outlives its flow. Each attempt is an MLflow
    run of its own: that of a killed trainer ends FAILED, the next one shows the whole curve.
    """
    connect(workspace)  # a task runner may have put this task into another process
    manifest = read_manifest(dataset)
    config = train_config(arch, manifest.recipe.dim, settings)
    out = workspace.runs / f"{arch}-{digest_json([config.model_dump(), manifest.digest])[:12]}"
    tags = {
        "lvm.dataset_digest": manifest.digest[:12],
        "lvm.encoder": manifest.recipe.name,
        "lvm.prefect_flow_run_id": flow_run_id,
        "lvm.arch": arch,
    }
    run_id = child_run(parent, arch, config.model_dump(), tags, manifest)
    with failing(run_id), lease(places) as device:
        set_tags(run_id, {"lvm.device": device})
        get_run_logger().info("%s trains on %s with %d threads into %s", arch, device, config.threads, out)
        command = [sys.executable, "-m", "lvm", "train", str(dataset), "--arch", arch, "--out", str(out), "--device", device]
        command += [f"--set={setting}" for setting in settings] + ["--resume", "--until-stdin-closes"]
        if fresh and task_run.run_count == 1:  # a retry goes on from what the first attempt left
            shutil.rmtree(out, ignore_errors=True)
        _run_trainer(command, out, config.threads, MetricsRelay(out / "training" / "metrics.jsonl", run_id))
    return TrainedModel(arch=arch, path=out, run_id=run_id)


def _run_trainer(command: list[str], out: Path, threads: int, relay: MetricsRelay) -> None:
    """Run the trainer to its end, relaying its metrics; raise with its last words when it fails."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_RUN_ID"} | {"OMP_NUM_THREADS": str(threads)}
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            while True:
                try:
                    process.wait(RELAY_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    relay.relay()
        finally:
            process.kill()  # does nothing to one that has ended
            process.wait()
    relay.relay()
    if process.returncode:
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        message = f"trainer ended with {process.returncode}: {' '.join(words)} (whole log: {log})"
        if process.returncode < 0:
            raise RuntimeError(message)  # a signal: the next attempt goes on
        raise InputError(message) if process.returncode == 2 else TrainerFailed(message)
