"""Stage `train-decoder`: one trainer process for the decoder of a dataset's encoder, on a leased device."""

from pathlib import Path

from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict

from lvm.atomic_io import digest_json
from lvm.config import DecoderTrainConfig, read_settings
from lvm.data.dataset import read_manifest
from lvm.decoding.load import recipe_folder
from lvm.devices import lease
from tasks.tracking.runs import PREFECT_RUN, child_run, connect, failing, set_tags
from tasks.trainer_process import train_into, worth_retrying
from tasks.workspace import Workspace


class TrainedDecoder(BaseModel):
    """A finished training."""

    model_config = ConfigDict(frozen=True)

    path: Path
    """Folder for `load_decoder`."""

    run_id: str


def decoder_config(settings: list[str]) -> DecoderTrainConfig:
    """The default configuration with settings such as `rounds=40` laid over it; `InputError` names an unknown field."""
    return read_settings(assignments=settings, reads=("decoder",)).decoder


@task(retries=2, retry_delay_seconds=1, retry_condition_fn=worth_retrying, task_run_name="train-decoder")
def fit_decoder(
    workspace: Workspace,
    dataset: Path,
    hold_out: list[Path],
    settings: list[str],
    places: list[str],
    threads: int,
    parent: str,
    flow_run_id: str,
    fresh: bool,
) -> TrainedDecoder:
    """Train a decoder; goes on from its last round, reuses a finished run of the same configuration and texts.

    `places` are the devices it may lease. No validation or test text of `dataset` and of the
    datasets `hold_out` is learned from; `InputError` when one of those is of another recipe. Each attempt is
    an MLflow run of its own: that of a killed trainer ends FAILED, the next one shows the whole curve.
    """
    connect(workspace)  # a task runner may have put this task into another process
    manifest, config = read_manifest(dataset), decoder_config(settings)
    others = {path: read_manifest(path) for path in hold_out}
    for path, other in others.items():
        manifest.recipe.require_same(other.recipe, f"field 'hold_out', dataset {path}")
    held_out = [found.digest for found in (manifest, *others.values())]
    content = digest_json([config.model_dump(), manifest.digest, held_out])
    out = workspace.decoders / f"{recipe_folder(manifest.recipe)}-{content[:12]}"
    tags = {
        "lvm.dataset_digest": manifest.digest[:12],
        "lvm.encoder": manifest.recipe.name,
        "lvm.held_out": ", ".join(digest[:12] for digest in held_out),
        PREFECT_RUN: flow_run_id,
    }
    run_id = child_run(parent, "decoder", config.model_dump(), tags, manifest)
    with failing(run_id), lease(places) as device:
        set_tags(run_id, {"lvm.device": device})
        get_run_logger().info("the decoder of %s trains on %s with %d threads into %s", manifest.recipe.name, device, threads, out)
        command = ["train-decoder", dataset, "--device", device, *(f"--hold-out={path}" for path in others)]
        train_into(out, run_id, command, settings, threads, fresh)
    return TrainedDecoder(path=out, run_id=run_id)
