"""MLflow, as the stages use it: explicit run ids, batched metrics, no active run in a thread.

The fluent API keeps one active run per thread in hidden state; stages run in several threads, so
they pass ids to the client instead.
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

from lvm.data.dataset import Manifest
from tasks.tracking.database import create_database
from tasks.workspace import Workspace

EXPERIMENT = "lvm"


MODEL = "lvm"


PREFECT_RUN = "lvm.prefect_flow_run_id"
"""Tag of a run: the Prefect flow run that it belongs to."""


BATCH = 900
"""Values in one `log_batch`; MLflow takes at most 1,000."""


def connect(workspace: Workspace) -> str:
    """Point MLflow at its store, creating database and experiment; returns the experiment's id.

    The store is `MLFLOW_TRACKING_URI`, or the workspace's own `mlruns/mlflow.db`. Artifacts are
    in the workspace's `mlruns/artifacts`, unless a server decides.
    """
    folder = workspace.mlruns.resolve()
    asked = os.environ.get("MLFLOW_TRACKING_URI")
    if not asked:
        create_database(folder / "mlflow.db", folder / "artifacts")
    mlflow.set_tracking_uri(asked or f"sqlite:///{folder / 'mlflow.db'}")
    if not asked:
        # MLflow exports what it is set to; left there, it would send the next workspace to this one's store.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    location = None if (asked or "").startswith(("http", "databricks")) else (folder / "artifacts").as_uri()
    client = MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    return str(found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=location))


@contextmanager
def parent_run(workspace: Workspace, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
    """The run of a whole flow; ends FINISHED, or FAILED with the reason when the block raises.

    A flow that fails leaves no child RUNNING: whatever its children still wanted will not come.
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
    """End the run FAILED, with the reason, when the block raises."""
    try:
        yield
    except BaseException as error:
        with suppress(MlflowException):  # where the store itself is what failed, the reason must not be lost with it
            fail(run_id, f"{type(error).__name__}: {error}")
        raise


def fail(run_id: str, reason: str) -> None:
    """End a run FAILED, its reason as the note that the UI shows."""
    _end(run_id, "FAILED", reason)


def kill(run_id: str, reason: str) -> None:
    """Mark a run whose process died KILLED, with the reason as its note."""
    _end(run_id, "KILLED", reason)


def _end(run_id: str, status: str, reason: str) -> None:
    client = MlflowClient()
    client.set_tag(run_id, MLFLOW_RUN_NOTE, reason[:5000])
    client.set_terminated(run_id, status)


def child_run(parent: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str], data: Manifest) -> str:
    """A run of one model below a flow's run, with its parameters and its dataset."""
    client = MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    run_id = str(client.create_run(experiment, run_name=name, tags={**tags, MLFLOW_PARENT_RUN_ID: parent}).info.run_id)
    with failing(run_id):
        client.log_batch(run_id, params=[Param(k, str(v)[:6000]) for k, v in flatten(params).items()])
        log_dataset(run_id, data)
    return run_id


def log_dataset(run_id: str, data: Manifest, context: str = "training") -> None:
    """Name the dataset as the run's input, by our digest; `context` says what for."""
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
        # Runs that name a new dataset in one moment each try to insert it; the second time it is there.
        MlflowClient().log_inputs(run_id, inputs)


def dataset_name(data: Manifest) -> tuple[str, str]:
    """Name and digest by which MLflow knows a dataset of record."""
    return "-".join(data.sources)[:100], data.digest[:12]


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log a set of values in as few calls as MLflow allows."""
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
    """Nested settings as dotted names: {"model": {"width": 1}} to {"model.width": 1}."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = json.dumps(value, default=str) if isinstance(value, list | tuple) else value
    return out
