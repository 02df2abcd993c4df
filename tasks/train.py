"""Stage `train`: one trainer for each model, on devices that it leases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prefect import get_run_logger, task
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from lvm.atomic_io import digest_json
from lvm.config import ARCHITECTURES, Settings, TrainConfig
from lvm.config.settings import Layer
from lvm.data.manifest import read_manifest
from lvm.devices import lease, slots
from lvm.errors import GateRefused, InputError
from tasks.tracking.runs import PREFECT_RUN, child_run, connect, failing, set_tags
from tasks.trainer_process import train_into, worth_retrying
from tasks.workspace import Workspace

COMPARED = ("context_length", "eval_windows")
"""Settings that must be the same for all models of a flow: they are compared at one context length, on one retrieval pool."""


class TrainedModel(BaseModel):
    """A finished training."""

    model_config = ConfigDict(frozen=True)

    arch: str
    path: Path
    run_id: str


@dataclass(frozen=True)
class TrainingPlan:
    """What the trainings of a flow share."""

    architectures: tuple[str, ...]
    settings: Settings

    places: list[str]
    """Devices that can be leased; see `lvm.devices.slots`."""

    per_model: int
    """Devices that train one model together."""

    def config(self, arch: str, dim: int) -> TrainConfig:
        """The training of one architecture on vectors of dimension `dim`."""
        return self.settings.train(arch, dim)


def plan_training(architectures: Sequence[str], given: Settings, device: str, devices_per_model: int | None) -> TrainingPlan:
    """Share the devices out among the models, and check that all of them can be trained and compared.

    Raises `InputError`, before any work, for an unknown or repeated architecture, a bad setting or a missing device.
    """
    if not architectures or len(set(architectures)) < len(architectures):
        raise InputError(f"field 'architectures' is {list(architectures)}: name each architecture once")
    places, per_model, threads = slots(len(architectures), device, devices_per_model)
    settings = replace(given, layers=(Layer({"threads": threads}), *given.layers))
    plan = TrainingPlan(tuple(architectures), settings, places, per_model)
    configs = [plan.config(ARCHITECTURES.require(arch), dim=1) for arch in architectures]
    if any(config.reverse for config in configs):
        raise InputError("field 'reverse' makes a model for comparisons, which cannot be promoted: train it with 'lvm train'")
    for name in COMPARED:
        if len({getattr(config, name) for config in configs}) > 1:
            raise InputError(f"setting '{name}' differs between architectures: give all of them the same, so that they can be compared")
    return plan


def finished_models(training: Sequence[PrefectFuture[TrainedModel]]) -> list[TrainedModel]:
    """Wait for all trainings and return the finished models. A model that a gate stopped is logged and left out.

    Raises `GateRefused` when no model is left, and whatever else a training has raised.
    """
    wait(list(training))
    refusals, models = [], []
    for future in training:
        try:
            models.append(future.result())
        except GateRefused as error:
            get_run_logger().error("stopped by a gate: %s", error)
            refusals.append(str(error))
    if not models:
        raise GateRefused("; ".join(refusals))
    return models


@task(retries=2, retry_delay_seconds=1, retry_condition_fn=worth_retrying, task_run_name="train-{arch}")
def train_model(workspace: Workspace, dataset: Path, arch: str, plan: TrainingPlan, parent: str, fresh: bool = False) -> TrainedModel:
    """Train one architecture. Continues from the last checkpoint, and reuses a finished run of the same settings and data.

    Each attempt is an MLflow run below `parent`: the run of a killed trainer ends FAILED, and the next one shows the
    whole curve. Raises `GateRefused` when a gate stopped the training after its first epoch.
    """
    connect(workspace)  # a task runner may have put this task into another process
    manifest = read_manifest(dataset)
    config = plan.config(arch, manifest.recipe.dim)
    out = workspace.runs / f"{arch}-{digest_json([config.model_dump(), manifest.digest])[:12]}"
    tags = {
        "lvm.dataset_digest": manifest.digest[:12],
        "lvm.encoder": manifest.recipe.name,
        "lvm.arch": arch,
        PREFECT_RUN: str(flow_run.id),
    }
    run_id = child_run(parent, arch, config.model_dump(), tags, manifest)
    with failing(run_id), lease(plan.places, plan.per_model) as device:
        set_tags(run_id, {"lvm.device": device})
        get_run_logger().info("%s trains on %s with %d threads into %s", arch, device, config.threads, out)
        command = ["train", dataset, "--arch", arch, "--device", device]
        try:
            train_into(out, run_id, command, plan.settings.as_file(arch), config.threads, fresh)
        except GateRefused:
            set_tags(run_id, {"lvm.gate": "fail"})
            raise
    return TrainedModel(arch=arch, path=out, run_id=run_id)
