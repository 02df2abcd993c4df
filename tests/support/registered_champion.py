"""A workspace with a champion: its dataset, its registry entry, its link."""

import shutil
from pathlib import Path

import torch
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.models.checkpoint import load_checkpoint
from tasks.promote import promote_best
from tasks.tracking.logged_model import log_checkpoint
from tasks.tracking.runs import child_run, log_metrics, parent_run
from tasks.train import TrainedModel
from tasks.validate import ValidatedModel, evaluation_metrics
from tasks.workspace import Workspace


def make_champion(workspace: Workspace, dataset: Dataset, model: Path) -> None:
    """Register and export the model in the folder `model` as champion, as retrain-all would."""
    shutil.copytree(dataset.path, workspace.datasets / dataset.manifest.key[:12], ignore=shutil.ignore_patterns("*.tmp"))
    checkpoint = load_checkpoint(model, torch.device("cpu"))
    path = workspace.runs / "lstm-champion"
    shutil.copytree(checkpoint.path, path)
    with parent_run(workspace, "retrain-all", {}, {}) as parent:
        run = child_run(parent, "lstm", {}, {}, dataset.manifest)
        found = {split: evaluate_checkpoint(dataset, checkpoint, split).summary() for split in ("val", "test")}
        log_metrics(run, evaluation_metrics("test", found["test"]))
        MlflowClient().set_terminated(run, "FINISHED")
    logged = log_checkpoint(run, path, checkpoint.config)
    model = ValidatedModel(trained=TrainedModel(arch="lstm", path=path, run_id=run), model_id=logged, **found, gates=[])
    with disable_run_logger():
        assert promote_best.fn([model], dataset.path, workspace, False, GateThresholds(), "cpu").promoted
