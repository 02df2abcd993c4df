"""Stage `diagnose`: the gates on the data and on the current champion."""

from pathlib import Path

from mlflow import MlflowClient
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from lvm.config import GateThresholds
from lvm.data.dataset import open_dataset
from lvm.devices import resolve_device
from lvm.errors import GateRefused, InputError
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.gates.data import data_gates
from lvm.gates.model import model_gates
from lvm.gates.result import require
from lvm.models.baselines import fit_baselines
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.figures.data import data_figures
from lvm.reports.tables.gates import gate_table
from tasks.gate_log import gate_tag, log_gates
from tasks.tracking.runs import log_dataset, set_tags
from tasks.train import TrainingPlan
from tasks.workspace import Workspace


@task
def diagnose_data(dataset: Path, limits: GateThresholds, run_id: str, figures: Path, device: str) -> None:
    """Run the data gates and log their results with figures; raises `GateRefused` afterwards when one fails."""
    data, place = open_dataset(dataset), resolve_device(device)
    log_dataset(run_id, data.manifest)
    results = data_gates(data, limits, place)
    for file in data_figures(data, figures, place):
        MlflowClient().log_artifact(run_id, str(file), "figures")
    table = gate_table(results, f"Data gates, dataset {data.manifest.digest[:12]}")
    create_markdown_artifact(table.markdown(), key="data-gates", description="Gates on the data")
    log_gates(run_id, results, "data")
    set_tags(
        run_id,
        {
            "lvm.gate": gate_tag(results),
            "lvm.dataset_digest": data.manifest.digest[:12],
            "lvm.encoder": data.manifest.recipe.name,
        },
    )
    require(results)


@task
def diagnose_champion(workspace: Workspace, dataset: Path, limits: GateThresholds, run_id: str, device: str) -> bool:
    """Run the model gates on the current champion; returns whether it passes (False if there is none).

    A champion that fails is replaced and does not stop the flow. Raises `InputError` for a champion of another
    encoder: it cannot be compared with what is trained here.
    """
    if not workspace.champion.exists():
        get_run_logger().info("no champion yet")
        return False
    try:
        checkpoint = load_checkpoint(workspace.champion.resolve(), resolve_device(device), limits.parity)
    except (InputError, GateRefused) as error:
        get_run_logger().warning("the champion does not load and is going to be replaced: %s", error)
        return False
    results = model_gates(checkpoint, evaluate_checkpoint(open_dataset(dataset), checkpoint, "val"), limits)
    table = gate_table(results, "Gates on the current champion, validation documents")
    create_markdown_artifact(table.markdown(), key="champion-gates", description="Gates on the current champion")
    log_gates(run_id, results, "champion")
    return all(r.passed for r in results)


@task
def prepare_baselines(dataset: Path, plan: TrainingPlan, device: str) -> None:
    """Fit the baselines once, so that no trainer has to."""
    data = open_dataset(dataset)
    config = plan.config(plan.architectures[0], data.dim)
    fitted = fit_baselines(data, config.context_length, config.eval_windows, resolve_device(device))
    get_run_logger().info("baselines fitted: %s", fitted.choices())
