"""How each service is called, and in which environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from flows.services.prefect_api import POOL, WORKER, api
from flows.services.process import HOST, Service
from tasks.tracking.ui_links import UI

ANOTHER_PREFECT = ("PREFECT_API_", "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_SERVER_API_", "PREFECT_SERVER_DATABASE_", "PREFECT__")
"""Prefixes of what a shell may say about another Prefect: the services know only their own."""


def shell() -> dict[str, str]:
    """The shell's environment, without another Prefect, and without the MLflow that it points its clients at."""
    return {k: v for k, v in os.environ.items() if not k.startswith(ANOTHER_PREFECT) and k != "MLFLOW_TRACKING_URI"}


def prefect_server(home: Path, port: int) -> tuple[list[str], Mapping[str, str]]:
    """The server with its own database, schedules and UI."""
    command = ["-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    return [sys.executable, *command], shell() | {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://{HOST}:{port}/api"}


def mlflow_server(store: str, artifacts: Path, port: int) -> tuple[list[str], Mapping[str, str]]:
    """MLflow's UI and REST API on the store of the flows.

    Flows write to the database itself, as they do without any service, and the server reads the same file: MLflow has each
    connection wait up to 20 s for another's write to end, and writes in short batches. Artifacts lie in the same folder
    whoever creates the experiment, since the server is told that folder too; left alone, it would give out
    addresses that only its own clients understand.
    """
    command = ["-m", "mlflow", "ui", "--backend-store-uri", store, "--default-artifact-root", artifacts.as_uri()]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    # One process instead of five, 500 MB instead of 2 GB: this is a window for one person.
    return [sys.executable, *command], shell() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def prefect_client(home: Path, server: Service, store: str, ui: str, command: list[str]) -> tuple[list[str], Mapping[str, str]]:
    """A Python module, run against our server: whatever flow it runs keeps its record in our store; its report links MLflow's `ui`."""
    environment = {"PREFECT_HOME": str(home), "PREFECT_API_URL": api(server), "MLFLOW_TRACKING_URI": store, UI: ui, "COLUMNS": "1000"}
    return [sys.executable, "-m", *command], shell() | environment


WORK = ["prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--name", WORKER, "--type", "process", "--no-create-pool-if-not-found"]
DEPLOY = ["prefect", "--no-prompt", "deploy", "--all"]
ALERT = ["tasks.nightly.alert", "--if-missing"]
"""Who is told of a breach; a webhook that somebody gave stays."""
