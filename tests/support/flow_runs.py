"""A flow as the command that a user types, and what a flow run left behind in MLflow and Prefect."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from prefect.client.orchestration import get_client

from tasks.tracking.runs import PREFECT_RUN


def flow_command(flow: str, root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m flows.FLOW --device cpu --root ROOT ...`, with a Prefect home and device leases of its own."""
    home = root.parent / f"{root.name}-home"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {"PREFECT_HOME": str(home), "TMPDIR": str(home / "tmp"), "COLUMNS": "200"}
    words = [sys.executable, "-m", f"flows.{flow}", "--device", "cpu", "--root", str(root), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=900)


def sentence(flow: str, done: subprocess.CompletedProcess[str]) -> str:
    """The one line of standard error in which the flow says why it ended."""
    (line,) = (line for line in done.stderr.splitlines() if line.startswith(f"{flow}: "))
    return line


def store(root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{root / 'mlruns' / 'mlflow.db'}")


def parents(root: Path) -> list[Any]:
    """The MLflow runs of the flows themselves, oldest first."""
    client = store(root)
    found = client.search_runs([client.get_experiment_by_name("lvm").experiment_id], order_by=["attributes.start_time ASC"])
    return [run for run in found if MLFLOW_PARENT_RUN_ID not in run.data.tags]


def children(root: Path, parent: Any) -> list[Any]:
    """The MLflow runs below one of them, oldest first."""
    below = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
    return list(store(root).search_runs([parent.info.experiment_id], below, order_by=["attributes.start_time ASC"]))


def files(root: Path, run: Any, folder: str = "") -> set[str]:
    """Paths of a run's artifacts in one folder."""
    return {file.path for file in store(root).list_artifacts(run.info.run_id, folder) if not file.is_dir}


def logged(root: Path, run: Any, path: str) -> Any:
    """A JSON artifact of a run."""
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(Path(store(root).download_artifacts(run.info.run_id, path, folder)).read_text(encoding="utf-8"))


def in_prefect(run: Any) -> tuple[str, dict[str, str]]:
    """Final state and artifacts, by key, of the Prefect flow run that an MLflow run belongs to."""
    flow_run = run.data.tags[PREFECT_RUN]
    with get_client(sync_client=True) as client:
        artifacts = {str(found.key): str(found.data) for found in client.read_artifacts() if str(found.flow_run_id) == flow_run}
        return str(client.read_flow_run(flow_run).state_name), artifacts
