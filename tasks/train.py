"""Stage `train`: one trainer a model, on the devices that it leases."""

from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.futures import PrefectFuture
from pydantic import BaseModel, ConfigDict

from lvm.atomic_io import digest_json
from lvm.config import train_config
from lvm.data.dataset import read_manifest
from lvm.devices import lease
from lvm.errors import GateRefused
from tasks.tracking.runs import PREFECT_RUN, child_run, connect, failing, set_tags
from tasks.trainer_process import train_into, worth_retrying
from tasks.workspace import Workspace


class TrainedModel(BaseModel):
    """A finished training."""

    model_config = ConfigDict(frozen=True)

    arch: str
    path: Path
    run_id: str


def not_barred(training: Sequence[PrefectFuture[TrainedModel]]) -> list[TrainedModel]:
    """The finished models. One that a gate stopped is barred and named in the log, its siblings go on.

    Raises `GateRefused` when no other is left, and whatever else a training ended with.
    """
    refusals, models = [], []
    for future in training:
        try:
            models.append(future.result())
        except GateRefused as error:
            get_run_logger().error("barred: %s", error)
            refusals.append(str(error))
    if not models:
        raise GateRefused("; ".join(refusals))
    return models


@task(retries=2, retry_delay_seconds=1, retry_condition_fn=worth_retrying, task_run_name="train-{arch}")
def train_model(
    workspace: Workspace,
    dataset: Path,
    arch: str,
    settings: list[str],
    places: list[str],
    parent: str,
    flow_run_id: str,
    fresh: bool,
    per_model: int = 1,
) -> TrainedModel:
    """Train one architecture; goes on from its last checkpoint, reuses a finished run.

    `places` are the devices it may lease, of which it takes `per_model`. Each attempt is an MLflow run of its own: that of a
    killed trainer ends FAILED, the next one shows the whole curve. Raises `GateRefused` when a gate stopped it after its first epoch.
    """
    connect(workspace)  # a task runner may have put this task into another process
    manifest = read_manifest(dataset)
    config = train_config(arch, manifest.recipe.dim, settings)
    out = workspace.runs / f"{arch}-{digest_json([config.model_dump(), manifest.digest])[:12]}"
    tags = {
        "lvm.dataset_digest": manifest.digest[:12],
        "lvm.encoder": manifest.recipe.name,
        PREFECT_RUN: flow_run_id,
        "lvm.arch": arch,
    }
    run_id = child_run(parent, arch, config.model_dump(), tags, manifest)
    with failing(run_id), lease(places, per_model) as device:
        set_tags(run_id, {"lvm.device": device})
        get_run_logger().info("%s trains on %s with %d threads into %s", arch, device, config.threads, out)
        command = ["train", dataset, "--arch", arch, "--device", device]
        try:
            train_into(out, run_id, command, settings, config.threads, fresh)
        except GateRefused:
            set_tags(run_id, {"lvm.gate": "fail"})
            raise
    return TrainedModel(arch=arch, path=out, run_id=run_id)
