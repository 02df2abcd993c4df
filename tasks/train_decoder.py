"""Stage `fit-decoder`: one trainer process for the decoder of a dataset's encoder, on a leased device."""

from pathlib import Path

from prefect import get_run_logger, task
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from lvm.atomic_io import digest_json
from lvm.config import Settings
from lvm.data.manifest import read_manifest
from lvm.decoding.load import recipe_folder
from lvm.devices import lease, slots
from tasks.tracking.runs import PREFECT_RUN, child_run, connect, failing, set_tags
from tasks.trainer_process import train_into, worth_retrying
from tasks.workspace import Workspace


class TrainedDecoder(BaseModel):
    """A finished training."""

    model_config = ConfigDict(frozen=True)

    path: Path
    """Folder for `load_decoder`."""

    run_id: str


@task(retries=2, retry_delay_seconds=1, retry_condition_fn=worth_retrying, task_run_name="fit-decoder")
def fit_decoder(
    workspace: Workspace, dataset: Path, hold_out: list[Path], given: Settings, device: str, parent: str, fresh: bool = False
) -> TrainedDecoder:
    """Train a decoder. Continues from the last round, and reuses a finished run of the same settings and texts.

    It learns from no validation or test text of `dataset` and of the datasets in `hold_out`; `InputError` when one of
    these has another encoder recipe. Each attempt is an MLflow run below `parent`: the run of a killed trainer ends
    FAILED, and the next one shows the whole curve.
    """
    connect(workspace)  # a task runner may have put this task into another process
    places, _, threads = slots(1, device, per_model=1)
    manifest, config = read_manifest(dataset), given.decoder
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
        PREFECT_RUN: str(flow_run.id),
    }
    run_id = child_run(parent, "decoder", config.model_dump(), tags, manifest)
    with failing(run_id), lease(places) as leased:
        set_tags(run_id, {"lvm.device": leased})
        get_run_logger().info("the decoder of %s trains on %s with %d threads into %s", manifest.recipe.name, leased, threads, out)
        command = ["train-decoder", dataset, "--device", leased, *(f"--hold-out={path}" for path in others)]
        train_into(out, run_id, command, given.as_file(), threads, fresh)
    return TrainedDecoder(path=out, run_id=run_id)
