"""Stage `champion`: the current champion, its registry entry and its dataset."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.exceptions import MlflowException
from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict

from lvm.data.manifest import read_manifest
from lvm.errors import InputError
from lvm.gates.nightly import OWN_NUMBERS
from lvm.models.checkpoint import FILES, read_config
from tasks.tracking.runs import MODEL
from tasks.workspace import Workspace


class Champion(BaseModel):
    """The champion as it is exported and registered."""

    model_config = ConfigDict(frozen=True)

    path: Path
    """Its folder below `models/versions/`."""

    arch: str
    version: str
    """Version in the registry."""

    dataset: Path
    """The dataset that it was trained on."""

    recorded: dict[str, float]
    """The metrics of `OWN_NUMBERS` on its test documents, logged when it was trained."""


def champion_folder(workspace: Workspace) -> Path:
    """The folder that the link `models/champion` points to; `InputError` when there is none or it is gone."""
    link = workspace.champion
    if not link.exists():
        if link.is_symlink():
            raise InputError(f"the champion {link} points to {link.readlink()}, which is gone: restore that folder, or retrain")
        raise InputError(f"there is no champion at {link}: make one with 'python -m flows.retrain_all', or give another --root")
    return link.resolve()


@task
def find_champion(workspace: Workspace) -> Champion:
    """Find the champion with its registry entry and its dataset.

    Raises `InputError` when one of them is missing, or when the registry's champion is not the exported model.
    """
    path = champion_folder(workspace)
    config = read_config(path)
    client = MlflowClient()
    try:
        entry = client.get_model_version_by_alias(MODEL, "champion")
    except MlflowException as error:
        remedy = f"remove {workspace.champion} and retrain, which registers it again (finished trainings are reused)"
        raise InputError(f"the registry has no {MODEL}@champion, though {path} is exported: {remedy}") from error
    name = f"registry entry {MODEL} version {entry.version} (champion)"
    if _registered_files(client, str(entry.version), name) != config.files:
        raise InputError(f"{name} is another model than {path}: correct the alias or the link, or retrain")
    metrics = client.get_run(str(entry.run_id)).data.metrics
    missing = [f"test/{metric}" for metric in OWN_NUMBERS if f"test/{metric}" not in metrics]
    if missing:
        raise InputError(f"{name}: its run {entry.run_id} has no metric {', '.join(missing)} to compare with: retrain")
    recorded = {metric: metrics[f"test/{metric}"] for metric in OWN_NUMBERS}
    dataset = _dataset(workspace, config.dataset_digest)
    get_run_logger().info("champion: %s, version %s, %s, trained on %s", config.arch, entry.version, path, dataset)
    return Champion(path=path, arch=config.arch, version=str(entry.version), dataset=dataset, recorded=recorded)


def _registered_files(client: MlflowClient, version: str, name: str) -> dict[str, str]:
    """SHA-256 of the registered model's files; `InputError` when files are missing."""
    place = f"{client.get_model_version_download_uri(MODEL, version)}/artifacts"
    there = {Path(file.path).name for file in list_artifacts(artifact_uri=place)}
    gone = sorted({"config.json", *FILES} - there)
    if gone:
        raise InputError(f"{name}: {', '.join(gone)} missing from {place}: restore the artifacts, or retrain")
    with TemporaryDirectory() as folder:
        file = Path(download_artifacts(artifact_uri=f"{place}/config.json", dst_path=folder))
        return dict(json.loads(file.read_text(encoding="utf-8"))["files"])


def _dataset(workspace: Workspace, digest: str) -> Path:
    """The dataset below `data/` with this digest; `InputError` when there is none."""
    for manifest in sorted(workspace.datasets.glob("*/manifest.json")):
        if read_manifest(manifest.parent).digest == digest:
            return manifest.parent
    raise InputError(
        f"the champion's dataset {digest[:12]} is not below {workspace.datasets}; it is needed to tell new documents "
        "from known ones: restore it, or retrain"
    )
