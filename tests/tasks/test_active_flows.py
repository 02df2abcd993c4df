"""A flow that was killed is cleared away by the next one: no run stays RUNNING, nothing that it started goes on."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tasks.active_flows import SERVER
from tests.support.processes import alive, until

pytestmark = pytest.mark.slow

FLOW = """
import sys, time
from pathlib import Path
from mlflow import MlflowClient
from prefect import flow, task
from prefect.runtime import flow_run
from tasks.active_flows import registered_flow
from tasks.tracking.runs import PREFECT_RUN, connect, parent_run
from tasks.workspace import Workspace

@task
def wait(seconds):
    time.sleep(seconds)

@flow(name="waits")
def waits(root: str, seconds: float):
    workspace, ready = Workspace(root=Path(root)), Path(root) / "ready"
    FIRST
    with registered_flow(workspace, flow_run.id), parent_run(workspace, "waits", {}, {PREFECT_RUN: str(flow_run.id)}):
        child = MlflowClient().create_run(connect(workspace), tags={PREFECT_RUN: str(flow_run.id)})
        (Path(root) / "ready").touch()
        wait(seconds)
        MlflowClient().set_terminated(child.info.run_id)

waits(sys.argv[1], float(sys.argv[2]))
"""


@contextmanager
def started(root: Path, seconds: float, first: str = "pass") -> Iterator[subprocess.Popen[bytes]]:
    """The flow in a process of its own, with a Prefect of its own, once it has come to its waiting."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "MLFLOW_"))}
    environment |= {"PREFECT_HOME": str(root.parent / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    (root / "ready").unlink(missing_ok=True)
    words = [sys.executable, "-c", FLOW.replace("FIRST", first), str(root), str(seconds)]
    with (root.parent / f"words-{seconds}").open("w") as file:  # no pipe: the server that outlives a killed flow would keep it open
        process = subprocess.Popen(words, stderr=file, env=environment)
    try:
        until(lambda: (root / "ready").exists() or process.poll() is not None)
        yield process
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children():
                child.kill()
        process.kill()
        process.wait()


def own_server(flow: subprocess.Popen[bytes]) -> int:
    """Process id of the server that Prefect started for the flow."""
    (server,) = (child.pid for child in psutil.Process(flow.pid).children() if SERVER in child.cmdline())
    return server


def mlflow_states(root: Path) -> list[str]:
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlruns' / 'mlflow.db'}")
    return sorted(run.info.status for run in client.search_runs([client.get_experiment_by_name("lvm").experiment_id]))


def prefect_states(root: Path, table: str) -> list[str]:
    """States in Prefect's own database, read without a server."""
    with sqlite3.connect(root.parent / "home" / "prefect.db") as database:
        return sorted(state for (state,) in database.execute(f"select state_type from {table}"))


def test_what_a_killed_flow_left_is_cleared_by_the_next_and_a_living_one_left_alone(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with started(root, 600) as dying:
        (record,) = (root / "runs" / "active-flows").glob("*.json")
        server = own_server(dying)
        until(lambda: prefect_states(root, "task_run") == ["RUNNING"])
        assert mlflow_states(root) == ["RUNNING", "RUNNING"] and prefect_states(root, "flow_run") == ["RUNNING"]
        dying.send_signal(signal.SIGKILL)
        dying.wait()
        assert alive(server), "Prefect's own server outlives the flow that it was started for"
    with started(root, 600) as living:
        assert living.poll() is None
        assert not alive(server)
        assert mlflow_states(root) == ["KILLED", "KILLED", "RUNNING", "RUNNING"]
        assert prefect_states(root, "flow_run") == ["CRASHED", "RUNNING"]
        until(lambda: prefect_states(root, "task_run") == ["CRASHED", "RUNNING"])
        with started(root, 0) as third:
            assert third.wait(timeout=60) == 0
            assert "was killed" not in (tmp_path / "words-0").read_text()
        assert living.poll() is None and prefect_states(root, "flow_run") == ["COMPLETED", "CRASHED", "RUNNING"]
        assert mlflow_states(root).count("RUNNING") == 2 and not list(root.glob(f"runs/active-flows/{record.stem}.*"))


def test_server_of_a_flow_that_died_before_it_had_a_record_ends_with_the_next(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with started(root, 600, "(lambda: (ready.touch(), time.sleep(600)))()") as dying:
        server = own_server(dying)
        dying.send_signal(signal.SIGKILL)
        dying.wait()
        assert alive(server) and not (root / "runs").exists()
    with started(root, 0) as third:
        assert third.wait(timeout=60) == 0
    assert not alive(server)


def test_workspace_that_cannot_be_written_is_one_sentence(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "runs").touch()  # a file where a folder has to be: permissions would not stop root
    with started(root, 0) as refused:
        assert refused.wait(timeout=60) == 1
        words = (tmp_path / "words-0").read_text()
        assert f"InputError: folder {root / 'runs'} cannot be written (File exists): make it writable, or give another --root" in words
