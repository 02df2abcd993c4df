"""Which flows are running, and the cleanup of what a killed flow left behind.

A flow that is killed cannot report it: its runs would stay RUNNING in Prefect and in MLflow for ever, and the
server that Prefect starts for a flow without one would keep running. So each flow registers: it writes a record
into its workspace and holds a lock, which the operating system releases however the process ends. The next flow
in that workspace cleans up after every record whose lock is free. Device leases are locks too, and trainers end
when the pipe from their flow closes, so neither needs a cleanup.
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
from prefect.runtime import flow_run
from prefect.states import Crashed
from pydantic import BaseModel, ConfigDict

from lvm.atomic_io import write_text
from tasks.tracking.runs import EXPERIMENT, PREFECT_RUN, connect, kill, parent_run
from tasks.workspace import Workspace

HOST = socket.gethostname()
SERVER = "prefect.server.api.server:create_app"
"""In the command line of the server that Prefect starts for a flow without one."""


class FlowRecord(BaseModel):
    """A flow that is running, or was when it was killed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flow_run_id: str
    host: str


@contextmanager
def registered_flow(workspace: Workspace, flow_run_id: object) -> Iterator[None]:
    """Clean up after killed flows, then register this one for the length of the block.

    Raises `InputError` when the workspace cannot be written.
    """
    workspace.require_writable()
    record = workspace.active_flows / f"{flow_run_id}.json"
    record.parent.mkdir(exist_ok=True)
    with FileLock(record.with_suffix(".lock")):
        if ended := _end_orphaned_servers():
            get_run_logger().warning("ended %d Prefect servers whose flows were killed", ended)
        for other in sorted(workspace.active_flows.glob("*.json")):
            if other == record:  # an earlier attempt of this flow run
                _clean_up(record, workspace, same_flow_run=True)
                continue
            with suppress(Timeout), FileLock(other.with_suffix(".lock")).acquire(blocking=False):
                _clean_up(other, workspace)
        write_text(record, FlowRecord(flow_run_id=str(flow_run_id), host=HOST).model_dump_json())
        try:
            yield
        finally:
            _remove(record)


@contextmanager
def tracked_flow(workspace: Workspace, name: str | None = None) -> Iterator[str]:
    """Register the current Prefect flow run and open its MLflow run, with its parameters; yields the id of the latter.

    The MLflow run has the name of the flow run unless another one is given.
    """
    name, tags = name or str(flow_run.name), {PREFECT_RUN: str(flow_run.id)}
    with registered_flow(workspace, flow_run.id), parent_run(workspace, name, flow_run.parameters, tags) as run:
        yield run


def _clean_up(record: Path, workspace: Workspace, same_flow_run: bool = False) -> None:
    """End the runs of the killed flow of `record`. With `same_flow_run`, this process continues its Prefect run, which stays open."""
    if not record.exists():  # it ended normally a moment ago, or another flow was faster
        return
    flow = FlowRecord.model_validate_json(record.read_text(encoding="utf-8"))
    if flow.host != HOST:  # a free lock says nothing about processes on another host
        return
    runs = _end_mlflow_runs(flow.flow_run_id, workspace)
    if not same_flow_run:
        _end_prefect_runs(flow.flow_run_id)
        _remove(record)
    get_run_logger().warning("flow run %s was killed; marked %d of its MLflow runs KILLED", record.stem, runs)


def _remove(record: Path) -> None:
    record.unlink(missing_ok=True)
    record.with_suffix(".lock").unlink(missing_ok=True)


def _end_orphaned_servers() -> int:
    """Kill servers of this Prefect home whose flow is gone; returns how many.

    A flow can be killed before it has registered, so all processes are searched. The flow that starts a server
    is its parent and runs the same Python; once the flow is gone, the server has another parent.
    """
    ended = 0
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            environment = process.environ()
            ours = environment.get("PREFECT__SERVER_EPHEMERAL") == "1" and environment.get("PREFECT_HOME") == os.environ.get("PREFECT_HOME")
            if ours and SERVER in process.cmdline() and _executable(process.parent()) != process.exe():
                process.kill()
                process.wait(10)
                ended += 1
    return ended


def _executable(process: psutil.Process | None) -> str | None:
    """Path of the program that a process runs; None when there is no process or the system hides it."""
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
        kill(run.info.run_id, "the flow was killed; the next flow in its workspace found that out")
    return len(found)


def _end_prefect_runs(flow_run_id: str) -> None:
    """Mark the flow run and its task runs CRASHED where they have not ended."""
    crashed: State[Any] = Crashed(message="the process was killed; the next flow in its workspace found that out")
    this = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        for task in client.read_task_runs(flow_run_filter=this):
            if task.state is None or not task.state.is_final():
                client.set_task_run_state(task.id, crashed, force=True)
        for flow in client.read_flow_runs(flow_run_filter=this):  # none if the record was made with another Prefect database
            if flow.state is None or not flow.state.is_final():
                client.set_flow_run_state(flow.id, crashed, force=True)
