"""A folder that looks like a checkout, with services of its own: what `make up` and `prefect` do in it."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun

from flows.services.process import Service, running

HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Checkout:
    """A folder that looks like a checkout, and the commands that a user runs in it."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        """A shell in which nobody has named a Prefect or an MLflow; device leases apart from everyone else's."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        temporary = self.path.parent / f"{self.path.name} tmp"
        temporary.mkdir(exist_ok=True)
        return mine | {"TMPDIR": str(temporary), "COLUMNS": "300", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

    def services(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`python -m flows.services`, which is what `make up`, `make ui` and `make down` call."""
        command = [sys.executable, "-m", "flows.services", *words]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.path, env=self.environment | variables, timeout=400, check=False
        )

    def prefect(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`prefect` in a shell that has read .prefect/env."""
        command = f". .prefect/env && exec {shlex.join([sys.executable, '-m', 'prefect', '--no-prompt', *words])}"
        return subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, cwd=self.path, env=self.environment, timeout=600, check=False
        )

    def address(self, name: str) -> str:
        """One of the exports in .prefect/env."""
        shown = subprocess.run(["sh", "-c", f'. .prefect/env && printf %s "${name}"'], capture_output=True, text=True, cwd=self.path)
        return shown.stdout

    def client(self) -> SyncPrefectClient:
        return SyncPrefectClient(self.address("PREFECT_API_URL"))

    def mlflow(self) -> MlflowClient:
        """Through the server, as the UI sees it."""
        return MlflowClient(tracking_uri=self.address("MLFLOW_TRACKING_URI"))

    def running(self) -> dict[str, Service]:
        found = {name: running(self.path / ".prefect", name) for name in ("prefect", "mlflow", "worker")}
        return {name: service for name, service in found.items() if service}


def make_checkout(path: Path) -> Checkout:
    path.mkdir()
    for name in ("prefect.yaml", "automations", "flows", "tasks", "lvm"):
        (path / name).symlink_to(HERE / name)
    return Checkout(path)


def given(**parameters: Any) -> list[str]:
    return [word for name, value in parameters.items() for word in ("--param", f"{name}={json.dumps(value)}")]


def flow_runs(checkout: Checkout, deployment: str) -> list[FlowRun]:
    with checkout.client() as client:
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=[client.read_deployment_by_name(deployment).id]))
        return client.read_flow_runs(deployment_filter=wanted)


def family(checkout: Checkout, name: str) -> list[psutil.Process]:
    """A service and all that it started."""
    process = psutil.Process(checkout.running()[name].pid)
    return [process, *process.children(recursive=True)]
