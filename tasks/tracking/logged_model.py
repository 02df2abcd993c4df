"""A finished checkpoint as MLflow's LoggedModel: its settings, its run and step, and the metrics measured on it.

The files stay where the trainer left them; the tag `lvm.checkpoint` gives the path. Only registration copies them.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

from lvm.data.manifest import Manifest
from lvm.errors import InputError
from lvm.models.checkpoint import CheckpointConfig
from tasks.tracking.limits import as_params
from tasks.tracking.runs import dataset_name, log_points


def log_checkpoint(run_id: str, folder: Path, config: CheckpointConfig) -> str:
    """Log the checkpoint in `folder` as an output of its run at the step of its best epoch; returns the LoggedModel's id.

    Raises `InputError` for a checkpoint of an earlier version, which did not record that step.
    """
    if "step" not in config.best:
        raise InputError(f"{folder} was trained by an earlier version, which did not record the step of its best epoch: give --fresh")
    client = MlflowClient()
    model = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name=config.arch,
        source_run_id=run_id,
        tags={
            MLFLOW_MODEL_IS_EXTERNAL: "true",
            "lvm.checkpoint": str(folder),
            "lvm.weights_sha256": config.files["model.safetensors"],
            "lvm.dataset_digest": config.dataset_digest[:12],
            "lvm.encoder": config.recipe.name,
        },
        params={param.key: param.value for param in as_params(config.train.model_dump())},
        model_type="predictor",
    )
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=int(config.best["step"]))])
    return str(model.model_id)


def log_model_metrics(run_id: str, model_id: str, metrics: Mapping[str, float], step: int, data: Manifest) -> None:
    """Log metrics of a checkpoint at `step`, linked to its run, its LoggedModel and the dataset."""
    (name, digest), at = dataset_name(data), int(time.time() * 1000)
    linked = {"model_id": model_id, "dataset_name": name, "dataset_digest": digest, "run_id": run_id}
    log_points(run_id, [Metric(metric, value, at, step, **linked) for metric, value in metrics.items()])
