"""The command line and the environment of each service."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from flows.services.prefect_api import POOL, WORKER, api
from flows.services.process import HOST, Service
from tasks.tracking.ui_links import UI

FOREIGN_PREFECT = ("PREFECT_API_", "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_SERVER_API_", "PREFECT_SERVER_DATABASE_", "PREFECT__")
"""Prefixes of variables that point a shell at another Prefect; the services see only their own."""


def shell() -> dict[str, str]:
    """The shell's environment without another Prefect and without the MLflow that its clients use."""
    return {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_PREFECT) and k != "MLFLOW_TRACKING_URI"}


def prefect_server(home: Path, port: int) -> tuple[list[str], Mapping[str, str]]:
    """The Prefect server with its own database, scheduler and UI."""
    command = ["-m", "flows.services.prefect_server", "server", "start", "--host", HOST, "--port", str(port)]
    return [sys.executable, *command], shell() | {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://{HOST}:{port}/api"}


def mlflow_server(store: str, artifacts: Path, port: int) -> tuple[list[str], Mapping[str, str]]:
    """MLflow's UI and REST API on the store of the flows.

    Flows write to the database directly, as they do without any service, and the server reads the same file. That is
    safe: a connection waits up to 20 s for another one's write, and MLflow writes in short batches. The server is given
    the artifact folder as a file URI, so that artifacts are in one place no matter who creates the experiment; by
    default it would hand out addresses that only its own clients can resolve.
    """
    command = ["-m", "mlflow", "ui", "--backend-store-uri", store, "--default-artifact-root", artifacts.as_uri()]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    # One process and 500 MB instead of five and 2 GB: it serves one person.
    return [sys.executable, *command], shell() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def prefect_client(home: Path, server: Service, store: str, ui: str, command: list[str]) -> tuple[list[str], Mapping[str, str]]:
    """A Python module that talks to our server. Flows that it runs log to our store, and their reports link to MLflow's `ui`."""
    environment = {"PREFECT_HOME": str(home), "PREFECT_API_URL": api(server), "MLFLOW_TRACKING_URI": store, UI: ui, "COLUMNS": "1000"}
    return [sys.executable, "-m", *command], shell() | environment


WORK = ["prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--name", WORKER, "--type", "process", "--no-create-pool-if-not-found"]
DEPLOY = ["prefect", "--no-prompt", "deploy", "--all"]
ALERT = ["tasks.nightly.alert", "--if-missing"]
"""Installs the breach automation, unless there is one: a webhook that the user has set stays."""
