"""Stage `promote`: the best new model becomes challenger, and champion if it is better than the current one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file

import lvm
from lvm.atomic_io import publish_folder
from lvm.config import GateThresholds
from lvm.data.dataset import open_dataset
from lvm.devices import resolve_device
from lvm.errors import GateRefused
from lvm.evaluation.compare import choose, compare
from lvm.models.checkpoint import FILES, load_checkpoint, read_config
from tasks.gate_log import gate_tag
from tasks.tracking.limits import TEXT, shortened
from tasks.tracking.runs import MODEL, set_tags
from tasks.validate import ValidatedModel
from tasks.workspace import Workspace

DESCRIPTION = """Predictors of the embedding of a document's next chunk from the embeddings of its last few chunks.

`champion` is the model to serve. It failed no gate and was better than the champion before it, if any, on the same validation documents.
A version's tag `lvm.gate` is `warn` where a gate warns; its description says which.
`challenger` is the best model of the newest flow. A version's description is its card. Loading needs no pickle:
`mlflow.pyfunc.load_model("models:/lvm@champion").predict(contexts)` with contexts [N, T, D] of one encoder."""
"""Description of the registered model in MLflow's UI."""

VERSION = "-v"
"""Separates the registry's version from the rest of an exported folder's name."""


class Promotion(BaseModel):
    """The outcome of a flow."""

    model_config = ConfigDict(frozen=True)

    challenger: str | None
    """Architecture of the best new model; None when no model passed its gates."""

    promoted: bool
    version: str | None
    """Version in the registry; None when nothing was registered."""

    reason: str

    def require_challenger(self) -> Self:
        """Itself; raises `GateRefused` when no model passed its gates."""
        if self.challenger is None:
            raise GateRefused(self.reason)
        return self


@task
def promote_best(
    models: list[ValidatedModel], dataset: Path, workspace: Workspace, champion_passes: bool, limits: GateThresholds, device: str
) -> Promotion:
    """Register the best model that passed its gates, and promote it when it is better than the champion (`lvm.evaluation.compare`).

    `champion_passes` tells whether there is a champion that passes its own gates. If not, the best model takes its place.
    """
    passed = {m.trained.arch: m for m in models if m.passed}
    if not passed:
        found = "; ".join(f"{m.trained.arch} {m.verdict}" for m in models)
        return Promotion(challenger=None, promoted=False, version=None, reason=f"no model passed its gates: {found}")
    best = passed[choose({arch: m.val for arch, m in passed.items()})]
    if champion_passes:
        place = resolve_device(device)
        new, old = (load_checkpoint(path, place, limits.parity) for path in (best.trained.path, workspace.champion.resolve()))
        if new.config.files == old.config.files:
            _follow_link(workspace)
            return Promotion(challenger=best.trained.arch, promoted=False, version=None, reason="it is the current champion itself")
        comparison = compare(open_dataset(dataset), new, old)
        promoted, reason = comparison.better, str(comparison)
    else:
        promoted, reason = True, "there was no champion that passes its gates"
    reason += f"; gates of the {best.trained.arch}: {best.verdict}"
    version = _register(best, promoted)
    if promoted:
        name = f"{best.trained.path.name}{VERSION}{version}"
        published = publish_folder(best.trained.path, workspace.champion, name, leave_out="training")
        _follow_link(workspace)
        get_run_logger().info("champion: %s at %s (%s)", best.trained.arch, published, reason)
    return Promotion(challenger=best.trained.arch, promoted=promoted, version=version, reason=reason)


def _follow_link(workspace: Workspace) -> None:
    """Set the registry's alias to the version that the exported link points to. This also repairs what a flow killed in between left."""
    version = workspace.champion.resolve().name.rpartition(VERSION)[2]
    try:
        MlflowClient().set_registered_model_alias(MODEL, "champion", version)
    except MlflowException as error:
        get_run_logger().warning("the registry has no entry for the champion %s: %s", workspace.champion.readlink(), error)


def _register(model: ValidatedModel, promoted: bool) -> str:
    """Log the checkpoint as a pyfunc model and register it as challenger; returns the registry's version."""
    golden = load_file(model.trained.path / "golden.safetensors")
    example = golden["inputs"][:2]
    shape = (-1, -1, example.shape[2])
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), shape)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, shape[2]))]),
        params=ParamSchema([ParamSpec("output_type", "string", "decoder")]),
    )
    with _code() as code:
        logged = mlflow.pyfunc.log_model(
            model_id=model.model_id,
            python_model=str(Path(__file__).parent / "tracking" / "pyfunc_model.py"),
            artifacts={name: str((model.trained.path / name).resolve()) for name in ("config.json", *FILES)},
            code_paths=[str(code)],
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}>={version}" for name, version in _requirements().items()],
            registered_model_name=MODEL,
        )
    client = MlflowClient()
    version = str(logged.registered_model_version)
    client.update_registered_model(MODEL, DESCRIPTION)
    client.update_model_version(MODEL, version, shortened(model.page(), TEXT))
    config = read_config(model.trained.path)
    tags = {"lvm.arch": config.arch, "lvm.encoder": config.recipe.name, "lvm.dataset_digest": config.dataset_digest[:12]}
    tags["lvm.gate"] = gate_tag(model.gate_results)
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, version, name, value)
    client.set_registered_model_alias(MODEL, "challenger", version)
    set_tags(model.trained.run_id, {"lvm.version": version, "lvm.promoted": str(promoted).lower()})
    return version


@contextmanager
def _code() -> Iterator[Path]:
    """A copy of the package for a registered model, without the shipped decoder's weights: a predictor does not need them."""
    with TemporaryDirectory() as folder:
        leave_out = shutil.ignore_patterns("__pycache__", "*.safetensors")
        yield Path(shutil.copytree(Path(lvm.__file__).parent, Path(folder) / "lvm", ignore=leave_out))


def _requirements() -> dict[str, Any]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "numpy", "pyarrow", "safetensors", "pydantic", "scipy")}
