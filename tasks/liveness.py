"""Which flows live, and how what a dead one left is cleared away.

A flow that is killed cannot say so: its runs would stay RUNNING in both stores for ever, and the
server that Prefect starts for a flow without one would go on. So a flow keeps a record of itself in
its workspace, with a lock that the operating system drops when it dies, however it dies. The next
flow that starts there finds records whose lock is free. Device leases are locks as well, and
trainers end with the pipe from their flow: neither needs clearing.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.states import Crashed
from pydantic import BaseModel, ConfigDict

from lvm.atomic_io import write_text
from tasks.tracking.runs import EXPERIMENT, PREFECT_RUN, connect, kill
from tasks.workspace import Workspace

HOST = socket.gethostname()


SERVER = "prefect.server.api.server:create_app"
"""In the command line of the server that Prefect starts for a flow without one."""


class LivingFlow(BaseModel):
    """The record of a flow that runs, or did when it died."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flow_run_id: str
    host: str


@contextmanager
def living(workspace: Workspace, flow_run_id: object) -> Iterator[None]:
    """Show for the length of the block that this flow lives, after clearing away what dead ones left.

    Raises `InputError` when the workspace cannot be written.
    """
    workspace.require_writable()
    record = workspace.living / f"{flow_run_id}.json"
    record.parent.mkdir(exist_ok=True)
    with FileLock(record.with_suffix(".lock")):
        if ended := _end_orphaned_servers():
            get_run_logger().warning("Prefect's own servers of dead flows, ended now: %d", ended)
        for other in sorted(workspace.living.glob("*.json")):
            if other == record:  # an earlier attempt of this flow run
                _clear(record, workspace, same_flow_run=True)
                continue
            with suppress(Timeout), FileLock(other.with_suffix(".lock")).acquire(blocking=False):
                _clear(other, workspace)
        write_text(record, LivingFlow(flow_run_id=str(flow_run_id), host=HOST).model_dump_json())
        try:
            yield
        finally:
            _remove(record)


def _clear(record: Path, workspace: Workspace, same_flow_run: bool = False) -> None:
    """Clear away what the dead flow of `record` left; the Prefect run goes on where this attempt is the `same_flow_run`."""
    if not record.exists():  # it has ended well in this moment, or another flow has cleared it
        return
    flow = LivingFlow.model_validate_json(record.read_text(encoding="utf-8"))
    if flow.host != HOST:  # a lock tells nothing of another host's processes
        return
    runs = _end_mlflow_runs(flow.flow_run_id, workspace)
    if not same_flow_run:
        _end_prefect_runs(flow.flow_run_id)
        _remove(record)
    get_run_logger().warning("flow run %s had died: %d MLflow runs are KILLED now", record.stem, runs)


def _remove(record: Path) -> None:
    record.unlink(missing_ok=True)
    record.with_suffix(".lock").unlink(missing_ok=True)


def _end_orphaned_servers() -> int:
    """Kill the servers of this Prefect home whose flow is dead; returns how many.

    They are found among all processes, since a flow can die before it has its record: whoever started one runs the same Python.
    """
    ended = 0
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            environment = process.environ()
            ours = environment.get("PREFECT__SERVER_EPHEMERAL") == "1" and environment.get("PREFECT_HOME") == os.environ.get("PREFECT_HOME")
            if ours and SERVER in process.cmdline() and _program(process.parent()) != process.exe():
                process.kill()
                process.wait(10)
                ended += 1
    return ended


def _program(process: psutil.Process | None) -> str | None:
    """What a process runs; None when there is no process, or it belongs to the system."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.exe() if process else None
    return None


def _end_mlflow_runs(flow_run_id: str, workspace: Workspace) -> int:
    """Mark the flow's unfinished MLflow runs KILLED; returns how many."""
    connect(workspace)
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    query = f"tags.`{PREFECT_RUN}` = '{flow_run_id}' and attributes.status = 'RUNNING'"
    found = client.search_runs([experiment.experiment_id], query) if experiment else []
    for run in found:
        kill(run.info.run_id, "its flow died; seen by the next one that started")
    return len(found)


def _end_prefect_runs(flow_run_id: str) -> None:
    """Mark the flow run and its task runs CRASHED where they have not ended."""
    died: State[Any] = Crashed(message="its process died; seen by the next flow that started in its workspace")
    this = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        for task in client.read_task_runs(flow_run_filter=this):
            if task.state is None or not task.state.is_final():
                client.set_task_run_state(task.id, died, force=True)
        for flow in client.read_flow_runs(flow_run_filter=this):  # none where the record was made with another Prefect store
            if flow.state is None or not flow.state.is_final():
                client.set_flow_run_state(flow.id, died, force=True)
