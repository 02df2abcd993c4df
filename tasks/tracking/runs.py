"""MLflow runs with explicit ids and batched metrics.

MLflow's fluent API keeps the active run of a thread in hidden state. Stages run in several threads, so they pass run
ids to the client instead.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from lvm.data.manifest import Manifest
from tasks.tracking.database import create_database
from tasks.workspace import Workspace

EXPERIMENT = "lvm"

MODEL = "lvm"
"""Name of the registered model."""

PREFECT_RUN = "lvm.prefect_flow_run_id"
"""Tag of a run: the Prefect flow run that it belongs to."""

BATCH = 900
"""Values in one `log_batch`; MLflow accepts at most 1,000."""


def connect(workspace: Workspace) -> str:
    """Point MLflow at its store and create database and experiment where needed; returns the experiment's id.

    The store is `MLFLOW_TRACKING_URI`, or the workspace's own `mlruns/mlflow.db`. Artifacts go to the workspace's
    `mlruns/artifacts`, unless a server decides.
    """
    folder = workspace.mlruns.resolve()
    asked = os.environ.get("MLFLOW_TRACKING_URI")
    if not asked:
        create_database(folder / "mlflow.db", folder / "artifacts")
    mlflow.set_tracking_uri(asked or f"sqlite:///{folder / 'mlflow.db'}")
    if not asked:
        # MLflow sets this variable itself; left in place, it would send the next workspace to this one's store.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    location = None if (asked or "").startswith(("http", "databricks")) else (folder / "artifacts").as_uri()
    client = MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    return str(found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=location))


@contextmanager
def parent_run(workspace: Workspace, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
    """The run of a whole flow. It ends FINISHED, or FAILED with the reason when the block raises.

    When the flow fails, its unfinished child runs end FAILED too: nobody would continue them.
    """
    experiment = connect(workspace)
    client = MlflowClient()
    run_id = str(client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)
    try:
        with failing(run_id):
            client.log_batch(run_id, params=[Param(k, str(v)[:6000]) for k, v in flatten(params).items()])
            yield run_id
    except BaseException as error:
        unfinished = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}' and attributes.status = 'RUNNING'"
        for child in client.search_runs([experiment], unfinished):
            fail(child.info.run_id, f"the flow ended before this run: {error}")
        raise
    client.set_terminated(run_id, "FINISHED")


@contextmanager
def failing(run_id: str) -> Iterator[None]:
    """End the run FAILED with the reason when the block raises."""
    try:
        yield
    except BaseException as error:
        with suppress(MlflowException):  # if the store itself failed, keep the original error
            fail(run_id, f"{type(error).__name__}: {error}")
        raise


def fail(run_id: str, reason: str) -> None:
    """End a run FAILED, with the reason as the note that the UI shows."""
    _end(run_id, "FAILED", reason)


def kill(run_id: str, reason: str) -> None:
    """Mark a run KILLED because its process is gone, with the reason as its note."""
    _end(run_id, "KILLED", reason)


def _end(run_id: str, status: str, reason: str) -> None:
    client = MlflowClient()
    client.set_tag(run_id, MLFLOW_RUN_NOTE, reason[:5000])
    client.set_terminated(run_id, status)


def child_run(parent: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str], data: Manifest) -> str:
    """Create the run of one model below a flow's run, with its parameters and its dataset; returns its id."""
    client = MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    run_id = str(client.create_run(experiment, run_name=name, tags={**tags, MLFLOW_PARENT_RUN_ID: parent}).info.run_id)
    with failing(run_id):
        client.log_batch(run_id, params=[Param(k, str(v)[:6000]) for k, v in flatten(params).items()])
        log_dataset(run_id, data)
    return run_id


def log_dataset(run_id: str, data: Manifest, context: str = "training") -> None:
    """Log the dataset as an input of the run, by our digest; `context` is what it is used for."""
    name, digest = dataset_name(data)
    dataset = Dataset(
        name=name,
        digest=digest,
        source_type="local",
        source=json.dumps({"sources": data.sources, "source_digest": data.source_digest}),
        profile=json.dumps({"documents": data.documents, "chunks": data.chunks}),
    )
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
    try:
        MlflowClient().log_inputs(run_id, inputs)
    except MlflowException:
        # Runs that log a new dataset at the same moment all try to insert it; at the second try it exists.
        MlflowClient().log_inputs(run_id, inputs)


def dataset_name(data: Manifest) -> tuple[str, str]:
    """Name and digest of a dataset in MLflow."""
    return "-".join(data.sources)[:100], data.digest[:12]


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics at one step, in as few calls as MLflow allows."""
    at = int(time.time() * 1000)
    log_points(run_id, [Metric(name, value, at, step) for name, value in metrics.items()])


def log_points(run_id: str, points: list[Metric]) -> None:
    """Log metric points in batches."""
    for start in range(0, len(points), BATCH):
        MlflowClient().log_batch(run_id, metrics=points[start : start + BATCH])


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set several tags of a run."""
    MlflowClient().log_batch(run_id, tags=[RunTag(k, v[:5000]) for k, v in tags.items()])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names: {"model": {"width": 1}} becomes {"model.width": 1}."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = json.dumps(value, default=str) if isinstance(value, list | tuple) else value
    return out
