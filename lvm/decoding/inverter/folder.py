"""A trained inverter on disk: a folder with int8 weights, tokenizer, config and card.

Each row of a matrix is stored as int8 with one scale, set by its largest entry. That takes a quarter of
float32's space, and an entry is off by at most half of a 127th of the row's largest. Vectors stay float32.
`config.json` is written last and holds the SHA-256 of weights and tokenizer. Nothing is pickled.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from lvm import __version__
from lvm.atomic_io import replacing, sha256_file, write_json_with_digest, write_text
from lvm.config import Config, DecoderTrainConfig, read_versioned
from lvm.data.recipe import EncoderRecipe
from lvm.decoding.inverter.model import InverterModel
from lvm.errors import InputError

FORMAT = 1


FILES = ("model.safetensors", "tokenizer.json")
"""Files beside `config.json` that a decoder needs."""


SCALE = ".scale"
"""Suffix of the tensor with the scales of a matrix's rows."""


class DecoderConfig(Config):
    """`config.json` of a trained inverter."""

    format: int
    """Version of this layout."""

    train: DecoderTrainConfig
    """The network and how it was trained."""

    recipe: EncoderRecipe
    """The encoder that it inverts."""

    dataset_digest: str
    """Digest of the dataset whose training documents it was trained on."""

    held_out: list[str]
    """Digests of the datasets whose validation and test texts were held out of its training."""

    parameters: int = Field(gt=0)
    """Number of trained parameters."""

    measured: dict[str, float]
    """Metrics on validation texts after the last round, without and with one correction."""

    files: dict[str, str]
    """SHA-256 of weights and tokenizer."""

    code_version: str
    """Version of lvm that wrote this."""


@dataclass(frozen=True)
class DecoderFolder:
    """The verified contents of a folder."""

    config: DecoderConfig
    model: InverterModel
    tokenizer: Tokenizer


def quantize(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices as int8 [rows, columns] with float32 scales [rows]; everything else unchanged, as float32."""
    out: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim != 2:
            out[name] = weight.float()
            continue
        scale = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny).float()
        out[name] = (weight / scale[:, None]).round().to(torch.int8)
        out[name + SCALE] = scale
    return out


def dequantize(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The float32 weights that `quantize` stored."""
    return {
        name: weight * stored[name + SCALE][:, None] if weight.dtype == torch.int8 else weight
        for name, weight in stored.items()
        if not name.endswith(SCALE)
    }


def save_decoder(
    path: Path,
    model: InverterModel,
    tokenizer: Tokenizer,
    train: DecoderTrainConfig,
    recipe: EncoderRecipe,
    dataset_digest: str,
    held_out: list[str],
    measured: dict[str, float],
    card: str,
) -> DecoderConfig:
    """Write a trained inverter to the folder `path`. `measured` are its validation metrics, `card` is Markdown."""
    (path / "config.json").unlink(missing_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items() if name not in model.tied}
    with replacing(path / "model.safetensors") as temporary:
        save_file(quantize(weights), temporary)
    write_text(path / "tokenizer.json", tokenizer.to_str())
    write_text(path / "card.md", card)
    config = DecoderConfig(
        format=FORMAT,
        train=train,
        recipe=recipe,
        dataset_digest=dataset_digest,
        held_out=held_out,
        parameters=sum(p.numel() for p in model.parameters()),
        measured=measured,
        files={name: sha256_file(path / name) for name in FILES},
        code_version=__version__,
    )
    write_json_with_digest(path / "config.json", config.model_dump())
    return config


def read_decoder_config(path: Path) -> DecoderConfig:
    """`config.json` of an inverter; `InputError` when it is missing, of another format or altered."""
    file = path / "config.json"
    if not file.is_file():
        raise InputError(
            f"decoder {path} holds no config.json: it is not a decoder, or its training did not finish (lvm train-decoder --resume)"
        )
    # Version 0.1.0 wrote no digest of the configuration.
    return read_versioned(DecoderConfig, file, FORMAT, "train the decoder again", digest_required=False)


def load_decoder_folder(path: Path, device: torch.device) -> DecoderFolder:
    """Load an inverter in evaluation mode; `InputError` when a file is missing or altered, or does not fit `config.json`."""
    config = read_decoder_config(path)
    for name in FILES:
        if not (path / name).is_file() or sha256_file(path / name) != config.files.get(name):
            raise InputError(f"{path / name} is missing, truncated or altered: copy or train the decoder again")
    with torch.device("meta"):
        model = InverterModel(config.train.model, config.recipe.dim)
    try:
        model.load_weights(dequantize(load_file(path / "model.safetensors")))
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit config.json: {error}") from error
    return DecoderFolder(config, model.to(device).eval(), Tokenizer.from_file(str(path / "tokenizer.json")))
