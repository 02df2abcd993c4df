"""Trained models of older formats as models of the present one, which make the same predictions.

The predictors of formats 5 and 6 start from lag weights. The present format has them too, as `model.heads=residual`, with the shares of the
trunk's residual stored with the weights. So nothing is trained again. The baselines are: they are part of a checkpoint, and stronger ones
have come since. An evaluation beside the model compares it with the earlier ones, so it is made anew.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file

from lvm.atomic_io import sha256_file, sync
from lvm.config import Config, GateThresholds, ModelConfig, SplitConfig, TrainConfig, parse
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.recipe import EncoderRecipe
from lvm.errors import GateRefused, InputError
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.evaluation.record import write_record
from lvm.gates.model import model_gates
from lvm.migration.result import Migrated
from lvm.models import build_predictor
from lvm.models.baselines import fit_baselines
from lvm.models.checkpoint import FORMAT, Checkpoint, TrainingRecord, golden_predictions, load_checkpoint, save_checkpoint
from lvm.models.ood import OutOfDistribution

OLDER = (5, 6)
"""Formats that are read here: 5 was written by version 0.1.0 at 085d1e9, 6 by the versions between that and format 7."""

VERDICT = "verdict.json"
"""Name of a model's evaluation in these formats."""

DROPPED = ("training/state.safetensors",)
"""What only the version that wrote it can use: the state from which an unfinished training is continued."""


class OlderConfig(Config):
    """`config.json` of the formats in `OLDER`. The fields are those of `CheckpointConfig`, with `train` as that version wrote it."""

    format: int
    arch: str
    train: dict[str, Any]
    recipe: EncoderRecipe
    dataset_digest: str
    splits: SplitConfig | None = None
    best: dict[str, float]
    history: list[dict[str, float]]
    gradient_shares: list[dict[str, float]] = Field(default_factory=list)
    parameters: int
    files: dict[str, str]
    code_version: str

    def present_train(self) -> TrainConfig:
        """How the model was trained, in the present fields: without those that no longer exist."""
        groups = {name: dict(values) for name, values in self.train.items() if isinstance(values, dict)}
        groups.get("model", {}).pop("residual_share", None)
        groups.get("loss", {}).pop("both_directions", None)  # it acted in training alone
        return parse(TrainConfig, self.train | groups)

    @property
    def residual_share(self) -> float:
        """Share of the trunk's residual in y_cos."""
        return float(self.train["model"].get("residual_share", 1.0))


def migrate_model(path: Path, values: dict[str, Any], data: Path | None, device: torch.device) -> Migrated:
    """Migrate the model at `path`, whose config.json holds `values`. The old folder is kept beside it, under its name and format.

    The new folder is written and verified before it takes the old one's place. Raises what `migrate` raises.
    """
    found = values.get("format")
    if found == FORMAT:
        load_checkpoint(path, device)
        return Migrated(path, "model", ())
    if found not in OLDER:
        known = ", ".join(map(str, (*OLDER, FORMAT)))
        raise InputError(f"{path / 'config.json'}: field 'format' is {found!r}; formats {known} are read here: train the model again")
    older = parse(OlderConfig, values)
    _require_intact(path, older)
    kept = path.with_name(f"{path.name}.format-{found}")
    if kept.exists():
        raise InputError(f"{kept} exists, where the old model would be kept: move it away")
    dataset = _dataset(path, older, data)
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        done = _convert(path, older, dataset, new, device)
        os.rename(path, kept)
        os.rename(new, path)
        sync(path.parent)
    return Migrated(path, "model", (f"format {found} became {FORMAT}, with the same predictions", *done), kept)


def _require_intact(path: Path, older: OlderConfig) -> None:
    """Raise `InputError` when a file of the old checkpoint is missing or altered."""
    for name, sha256 in older.files.items():
        if not (path / name).is_file() or sha256_file(path / name) != sha256:
            raise InputError(f"{path / name} is missing, truncated or altered: copy or train the model again")


def _dataset(path: Path, older: OlderConfig, data: Path | None) -> Dataset:
    """The dataset that the model was trained on; `InputError` when none or another is given."""
    wanted = older.dataset_digest[:12]
    if data is None:
        raise InputError(f"{path}: its baselines are fitted anew, on the dataset {wanted} that it was trained on: give --dataset")
    dataset = open_dataset(data)
    if dataset.manifest.digest != older.dataset_digest:
        raise InputError(f"--dataset {data} is {dataset.manifest.digest[:12]}, but {path} was trained on {wanted}: give that one")
    return dataset


def _convert(path: Path, older: OlderConfig, dataset: Dataset, new: Path, device: torch.device) -> list[str]:
    """Write the model at `path` to `new` in the present format, and verify it; returns what was done."""
    train = older.present_train()
    state = state_with_shares(load_file(path / "model.safetensors"), train.model, older.residual_share)
    baselines = fit_baselines(dataset.directed(train.reverse), train.context_length, train.eval_windows, device)
    model = build_predictor(train.model, state["mean"], state["std"], baselines)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit architecture '{older.arch}': {error}") from error
    model.to(device)
    golden = load_file(path / "golden.safetensors")
    _require_same_predictions(path, golden, golden_predictions(model, golden["inputs"]))
    manifest = dataset.manifest
    record = TrainingRecord(train, older.recipe, manifest.digest, older.best, older.history, older.gradient_shares, manifest.splits)
    ood = out_of_distribution(path / "familiarity.safetensors", state["mean"])
    shutil.copytree(path, new, ignore=_left_out(path, older))
    save_checkpoint(new, model, golden["inputs"], baselines, ood, record, _card(path, older.format))
    checkpoint = load_checkpoint(new, device)
    done = ["the present baselines were fitted"]
    if (path / VERDICT).exists():
        _evaluate(checkpoint, dataset)
        done.append("it was evaluated anew, beside the present baselines")
    for file in new.rglob("*"):
        sync(file)
    return done


def state_with_shares(state: dict[str, torch.Tensor], model: ModelConfig, residual_share: float) -> dict[str, torch.Tensor]:
    """The weights and buffers of a predictor, or of every member, with the shares of the residual that count: all of it in y_dec.

    The one head of the broken original has no residual.
    """
    if model.heads == "legacy":
        return state
    prefixes = [f"members.{i}." for i in range(model.members)] if model.members > 1 else [""]
    shares = {"decoder_share": torch.tensor(1.0), "cosine_share": torch.tensor(residual_share)}
    return state | {prefix + name: value for prefix in prefixes for name, value in shares.items()}


def out_of_distribution(file: Path, mean: torch.Tensor) -> OutOfDistribution:
    """What these formats kept in `familiarity.safetensors`."""
    with safe_open(file, "pt") as stored:
        numbers = json.loads(stored.metadata()["familiarity"])
        return OutOfDistribution(mean, stored.get_tensor("whitener"), numbers["limit"], tuple(numbers["norms"]))


def _require_same_predictions(path: Path, golden: dict[str, torch.Tensor], found: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Raise `GateRefused` when the converted model does not reproduce the golden predictions of the old one."""
    difference = float(torch.stack([found[0] - golden["y_dec"], found[1] - golden["y_cos"]]).abs().max())
    if not difference <= GateThresholds().parity:  # also when it is NaN
        raise GateRefused(f"reload_parity: {path}: golden predictions would differ by {difference:.2g}: it stays as it is; train it again")


def _left_out(path: Path, older: OlderConfig) -> Callable[[Any, list[str]], list[str]]:
    """Which names of a folder `shutil.copytree` leaves out: what the checkpoint consists of, which is written anew, and `DROPPED`."""
    own = {path / name for name in (*older.files, "config.json", VERDICT, *DROPPED)}
    return lambda folder, names: [name for name in names if Path(folder) / name in own]


def _card(path: Path, found: int) -> str:
    """The old card, and what its figures rest on."""
    note = f"Migrated from format {found}. The skill in the table of epochs is over the baselines of the version that trained this model."
    return (path / "card.md").read_text(encoding="utf-8") + f"\n{note}\n"


def _evaluate(checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Evaluate the model on validation and test documents, and keep the record beside it, as the flow does."""
    val, test = (evaluate_checkpoint(dataset, checkpoint, split) for split in ("val", "test"))
    gates = [gate.as_json() for gate in model_gates(checkpoint, val, GateThresholds())]
    write_record(checkpoint.path, dataset.manifest.digest, gates, val.summary(), test.summary())
