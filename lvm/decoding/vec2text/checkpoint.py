"""Find a vec2text checkpoint and load its two models.

A checkpoint folder holds

    inversion/   config.json, *.safetensors     the hypothesizer (published: jxm/gtr__nq__32)
    corrector/   config.json, *.safetensors     optional (published: jxm/gtr__nq__32__correct)
    t5/          config.json, tokenizer files   optional: the T5 that both were made from (t5-base), without weights

as written by vec2text's `save_pretrained` and `save_model`. Without `t5/`, the T5's config and tokenizer come
from the checkpoint's `model_name_or_path`. Weights must be safetensors.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lvm.decoding.vec2text.repairs import build_corrector, build_inversion, import_vec2text
from lvm.errors import InputError

PUBLISHED = {"gtr-base": ("jxm/gtr__nq__32", "jxm/gtr__nq__32__correct")}
"""Hub names of published pairs, by the name that is given to `lvm`."""


ENCODERS = {"gtr_base": "gtr-t5-base", "sentence-transformers/all-MiniLM-L6-v2": "minilm"}
"""Encoder recipe by vec2text's `embedder_model_name`. A name that starts with `sentence-transformers/` needs no entry."""


MODEL_FILES = ("config.json", "*.safetensors")


TOKENIZER_FILES = ("config.json", "tokenizer*.json", "special_tokens_map.json", "*.model", "vocab.json", "vocab.txt", "merges.txt")


REMEDY = "download it on a machine with network access, and give a folder with inversion/, corrector/ and t5/"


@dataclass(frozen=True)
class Vec2TextCheckpoint:
    """The folders and the config of a checkpoint; no weights are read yet."""

    inversion: Path
    corrector: Path | None
    config: Any
    """The inversion model's `InversionConfig`."""

    t5: Path
    encoder: str
    """Name of the encoder recipe that the checkpoint inverts."""


def find_checkpoint(name: str) -> Vec2TextCheckpoint:
    """Find the checkpoint `name`: `gtr-base` (the published pair) or a folder. `InputError` says what is missing."""
    import_vec2text()  # a missing library is reported before anything is downloaded
    corrector: Path | None
    if name in PUBLISHED:
        inversion, corrector = (_snapshot(hub_name, MODEL_FILES) for hub_name in PUBLISHED[name])
    else:
        inversion, corrector = Path(name) / "inversion", Path(name) / "corrector"
        if not inversion.is_dir():
            known = ", ".join(f"'{published}'" for published in PUBLISHED)
            raise InputError(f"vec2text decoder {name!r}: expected {known} or a folder with inversion/ in it; {inversion} is not a folder")
        corrector = corrector if corrector.is_dir() else None
    config = read_config(inversion)
    encoder = _encoder_name(inversion, config)
    if corrector and (other := _encoder_name(corrector, read_config(corrector))) != encoder:
        raise InputError(
            f"{corrector} corrects vectors of the encoder {other}, {inversion} inverts those of {encoder}: they do not belong together"
        )
    local = Path(name) / "t5"
    t5 = local if local.is_dir() else _snapshot(config.model_name_or_path, TOKENIZER_FILES)
    return Vec2TextCheckpoint(inversion, corrector, config, t5, encoder)


def load_models(checkpoint: Vec2TextCheckpoint, dim: int, corrector: bool) -> tuple[Any, Any | None]:
    """Load the inversion model and, if `corrector` is true, the corrector: float32, on the CPU, for inference.

    `dim` is the dimension of the encoder's vectors. Raises `InputError` when a file is missing or damaged, or
    when the tensors are not exactly those of the model that the config describes.
    """
    from transformers import AutoConfig, AutoTokenizer

    for patterns, what in ((("config.json",), "config.json"), (("tokenizer.json", "*.model"), "tokenizer")):
        if not any(any(checkpoint.t5.glob(pattern)) for pattern in patterns):  # transformers would use a default instead
            raise InputError(f"vec2text decoder: {checkpoint.t5} holds no {what}")
    try:
        backbone = AutoConfig.from_pretrained(checkpoint.t5, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.t5, local_files_only=True)
        inversion = build_inversion(checkpoint.config, backbone, tokenizer, dim)
        second = build_corrector(read_config(checkpoint.corrector), backbone, dim) if corrector and checkpoint.corrector else None
    except (AttributeError, OSError, ValueError, KeyError) as error:
        raise InputError(f"vec2text decoder: {checkpoint.inversion} or {checkpoint.t5} cannot be loaded: {error}") from error
    load_weights(inversion, checkpoint.inversion)
    if second is not None and checkpoint.corrector:
        load_weights(second, checkpoint.corrector)
    return inversion, second


def load_weights(model: Any, folder: Path) -> None:
    """Load the safetensors of `folder` into `model`; `InputError` unless they fit it exactly."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"no safetensors weights in {folder}: pickled weights are refused; save them as model.safetensors")
    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in files:
            tensors |= load_file(file)
        # A checkpoint also holds its embedder's weights, which are not used: texts are embedded by our encoder.
        tensors = {key: value for key, value in tensors.items() if not key.startswith("embedder.")}
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"weights in {folder} do not fit the model that its config describes: {' '.join(str(error).split())}") from error
    state = model.state_dict()
    # T5 ties its embeddings, and safetensors stores a tied tensor once, under any of its names.
    loaded = {state[key].data_ptr() for key in tensors if key in state}
    missing = [key for key in missing if state[key].data_ptr() not in loaded]
    overwritten = [key for key in tensors if key in state and not torch.equal(state[key], tensors[key].to(state[key].dtype))]
    for fault, keys in (("lack", missing), ("have unknown tensors", unexpected), ("hold two values for the tied tensors", overwritten)):
        if keys:
            raise InputError(f"weights in {folder} do not fit the model that its config describes: they {fault} {', '.join(keys[:4])}")
    model.eval().requires_grad_(False)


def read_config(folder: Path) -> Any:
    """The `InversionConfig` in `folder`; `InputError` when it cannot be read or is not one."""
    config_class = import_vec2text().models.config.InversionConfig
    try:
        config = config_class(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"vec2text decoder: {folder}/config.json cannot be read: {error}") from error
    for field in ("model_name_or_path", "max_seq_length", "num_repeat_tokens"):
        if not hasattr(config, field):
            raise InputError(f"vec2text decoder: {folder}/config.json lacks the field {field!r}: it is not a vec2text checkpoint")
    return config


def _encoder_name(folder: Path, config: Any) -> str:
    name = getattr(config, "embedder_model_name", None)
    if getattr(config, "embedder_model_api", None):
        raise InputError(f"{folder} inverts the remote embedder {config.embedder_model_api!r}, for which there is no encoder recipe")
    if isinstance(name, str) and (name in ENCODERS or name.startswith("sentence-transformers/")):
        return ENCODERS.get(name, f"sentence-transformers:{name}")
    known = ", ".join([*ENCODERS, "sentence-transformers/<name>"])
    raise InputError(f"{folder}/config.json, field 'embedder_model_name': {name!r} is not an encoder recipe; expected {known}")


def _snapshot(name: str, patterns: Sequence[str]) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client raises a dozen classes; all mean that the model is not available
        raise InputError(f"vec2text decoder: {name!r} is not a folder and cannot be downloaded from the hub; {REMEDY}: {error}") from error
