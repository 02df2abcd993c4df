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
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from lvm.data.manifest import Manifest
from lvm.data.names import first_names
from tasks.tracking.database import create_database
from tasks.tracking.limits import LISTED, PARAMS, RUN_NAME, TEXT, as_params, shortened
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
    run_id = _create_run(experiment, name, tags)
    try:
        with failing(run_id):
            _log_params(run_id, params)
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
    client.set_tag(run_id, MLFLOW_RUN_NOTE, shortened(reason, TEXT))
    client.set_terminated(run_id, status)


def child_run(parent: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str], data: Manifest) -> str:
    """Create the run of one model below a flow's run, with its parameters and its dataset; returns its id."""
    experiment = MlflowClient().get_run(parent).info.experiment_id
    run_id = _create_run(experiment, name, {**tags, MLFLOW_PARENT_RUN_ID: parent})
    with failing(run_id):
        _log_params(run_id, params)
        log_dataset(run_id, data)
    return run_id


def _create_run(experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Create a run; returns its id."""
    short = {key: shortened(value, TEXT) for key, value in tags.items()}
    return str(MlflowClient().create_run(experiment, run_name=shortened(name, RUN_NAME), tags=short).info.run_id)


def _log_params(run_id: str, values: Mapping[str, Any]) -> None:
    """Log nested settings as the run's parameters."""
    params = as_params(values)
    for start in range(0, len(params), PARAMS):
        MlflowClient().log_batch(run_id, params=params[start : start + PARAMS])


def log_dataset(run_id: str, data: Manifest, context: str = "training") -> None:
    """Log the dataset as an input of the run, by our digest; `context` is what it is used for.

    Of many sources, the first are named and the others counted; the manifest names them all.
    """
    name, digest = dataset_name(data)
    dataset = Dataset(
        name=name,
        digest=digest,
        source_type="local",
        source=json.dumps({"sources": first_names(data.sources, LISTED), "source_digest": data.source_digest}),
        profile=json.dumps({"documents": data.documents, "chunks": data.chunks}),
    )
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
    try:
        MlflowClient().log_inputs(run_id, inputs)
    except MlflowException:
        # Runs that log a new dataset at the same moment all try to insert it; at the second try it exists.
        MlflowClient().log_inputs(run_id, inputs)


def dataset_name(data: Manifest) -> tuple[str, str]:
    """Name and digest of a dataset in MLflow. The digest identifies it; the name is that of its first sources."""
    return shortened("-".join(first_names(data.sources, 80)), 250), data.digest[:12]


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
    MlflowClient().log_batch(run_id, tags=[RunTag(k, shortened(v, TEXT)) for k, v in tags.items()])
