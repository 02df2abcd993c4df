"""A trained model as a folder that is verified whenever it is loaded.

`model.safetensors`, `config.json`, `golden.safetensors`, `baselines.safetensors`, `out_of_distribution.safetensors` and `card.md`. The
golden file holds inputs with the predictions that the model made when it was saved. Every loader reproduces them or refuses, so that
neither other weights nor another forward pass under the same names can go unnoticed. The mean of the training chunks is stored once, as a
buffer of the model. No pickle anywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from lvm import __version__
from lvm.atomic_io import replacing, sha256_file, write_json_with_digest, write_text
from lvm.config import Config, GateThresholds, SplitConfig, TrainConfig, read_versioned
from lvm.data.recipe import EncoderRecipe
from lvm.errors import GateRefused, InputError
from lvm.models import Predictor, build_predictor
from lvm.models.baselines import Baselines
from lvm.models.ood import OutOfDistribution

FORMAT = 7
"""Version of the layout, raised when an older loader or an older checkpoint would no longer do."""

GOLDEN_INPUTS = 32

FILES = ("model.safetensors", "golden.safetensors", "baselines.safetensors", "out_of_distribution.safetensors", "card.md")


class CheckpointConfig(Config):
    """`config.json` of a checkpoint. It is written last, so that its presence means that the other files are complete."""

    format: int
    """Version of this layout."""

    arch: str
    """Architecture; equal to that of `train.model`."""

    train: TrainConfig
    """How the model was trained."""

    recipe: EncoderRecipe
    """Encoder whose vectors the model reads and predicts."""

    dataset_digest: str
    """Digest of the dataset that the model was trained on."""

    splits: SplitConfig | None = None
    """How the documents of that dataset were divided; None in models from before this was stored."""

    best: dict[str, float]
    """Validation metrics of the model as it was kept: its epoch, and as 'chosen/NAME' what validation chose after the training."""

    history: list[dict[str, float]]
    """Validation metrics of every epoch: they tell an under-trained model from a collapsed one."""

    gradient_shares: list[dict[str, float]] = Field(default_factory=list)
    """Gradient share and loss of every term, with the step, each time they were logged."""

    parameters: int = Field(gt=0)
    """Number of trained values."""

    files: dict[str, str]
    """SHA-256 of every other file."""

    code_version: str
    """Version of lvm that wrote this."""

    def require_forward(self, path: Path) -> None:
        """Raise `InputError` when the model was trained to predict the previous chunk, which is for comparison only."""
        if self.train.reverse:
            raise InputError(f"{path}: field 'train.reverse' is true, this model reads documents backwards: give one trained without it")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded and verified model."""

    path: Path
    config: CheckpointConfig
    model: Predictor
    baselines: Baselines
    ood: OutOfDistribution
    parity: float
    """Greatest absolute difference between the golden predictions and the recorded ones."""


@dataclass(frozen=True)
class TrainingRecord:
    """How a model was trained: the fields of the same names in `CheckpointConfig`."""

    train: TrainConfig
    recipe: EncoderRecipe
    dataset_digest: str
    best: dict[str, float]
    history: list[dict[str, float]]
    gradient_shares: list[dict[str, float]]
    splits: SplitConfig | None = None


@contextmanager
def exact_float32() -> Iterator[None]:
    """Matrix products and cuDNN in true float32: TF32 would change golden predictions."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@torch.inference_mode()
def golden_predictions(model: Predictor, inputs_NTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`(y_dec, y_cos)` [N, D] of the contexts [N, T, D] in evaluation mode and exact float32; the results are on the CPU."""
    with exact_float32():
        y_dec, y_cos = model.eval()(inputs_NTD.to(model.mean.device), return_both=True)
    return y_dec.cpu().contiguous(), y_cos.cpu().contiguous()


def save_checkpoint(
    path: Path,
    model: Predictor,
    golden_inputs: torch.Tensor,
    baselines: Baselines,
    ood: OutOfDistribution,
    record: TrainingRecord,
    card: str,
) -> CheckpointConfig:
    """Write a checkpoint.

    `golden_inputs`: [32, T, D] contexts of real text. `card`: Markdown. Returns what `config.json` holds.
    """
    y_dec, y_cos = golden_predictions(model, golden_inputs)
    (path / "config.json").unlink(missing_ok=True)
    with replacing(path / "model.safetensors") as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, temporary)
    with replacing(path / "golden.safetensors") as temporary:
        save_file({"inputs": golden_inputs.cpu().contiguous(), "y_dec": y_dec, "y_cos": y_cos}, temporary)
    baselines.save(path / "baselines.safetensors")
    ood.save(path / "out_of_distribution.safetensors")
    write_text(path / "card.md", card)
    config = CheckpointConfig(
        format=FORMAT,
        arch=record.train.model.arch,
        **vars(record),
        parameters=sum(p.numel() for p in model.parameters()),
        files={name: sha256_file(path / name) for name in FILES},
        code_version=__version__,
    )
    write_json_with_digest(path / "config.json", config.model_dump())
    return config


def read_config(path: Path) -> CheckpointConfig:
    """`config.json` of a checkpoint. Raises `InputError` when it is missing, of another format or inconsistent."""
    file = path / "config.json"
    if not file.is_file():
        raise InputError(f"{path} holds no config.json: not a model, or its training did not finish (lvm train --resume)")
    older = f"run 'lvm migrate {path} --dataset DATA', or train the model again"
    config = read_versioned(CheckpointConfig, file, FORMAT, "train the model again", older=older)
    if config.arch != config.train.model.arch:
        raise InputError(f"{file}: field 'arch' says {config.arch}, 'train.model.arch' {config.train.model.arch}")
    return config


def load_checkpoint(path: Path, device: torch.device, tolerance: float = GateThresholds().parity) -> Checkpoint:
    """Load a model onto `device` and reproduce its golden predictions.

    Raises `InputError` when a file is missing or altered or the weights do not fit the declared architecture, and `GateRefused` (the
    gate `reload_parity`) when a golden prediction differs by more than `tolerance`.
    """
    config = read_config(path)
    for name in FILES:
        if not (path / name).is_file() or sha256_file(path / name) != config.files.get(name):
            raise InputError(f"{path / name} is missing, truncated or altered: copy or train the model again")
    state = load_file(path / "model.safetensors")
    if "mean" not in state:
        raise InputError(f"{path / 'model.safetensors'} holds no training mean: copy or train the model again")
    baselines = Baselines.load(path / "baselines.safetensors", state["mean"])
    model = build_predictor(config.train.model, state["mean"], torch.ones_like(state["mean"]), baselines)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit architecture '{config.arch}': {error}") from error
    model.to(device).eval()
    golden = load_file(path / "golden.safetensors")
    y_dec, y_cos = golden_predictions(model, golden["inputs"])
    # torch's maximum of anything with a NaN is NaN; Python's is not.
    parity = float(torch.cat([y_dec - golden["y_dec"], y_cos - golden["y_cos"]]).abs().max())
    if not parity <= tolerance:  # also when it is NaN
        difference = f"golden predictions differ by {parity:.2g}, over {tolerance:g}"
        raise GateRefused(f"reload_parity: {path}: {difference}: the weights or the code are not this model's; train it again")
    ood = OutOfDistribution.load(path / "out_of_distribution.safetensors", model.mean).to(device)
    return Checkpoint(path, config, model, baselines, ood, parity)
