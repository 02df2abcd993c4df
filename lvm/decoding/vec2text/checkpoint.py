"""Where a vec2text checkpoint lies, and loading its two models.

A folder holds

    inversion/   config.json, *.safetensors     the hypothesizer (published: jxm/gtr__nq__32)
    corrector/   config.json, *.safetensors     optional (published: jxm/gtr__nq__32__correct)
    t5/          config.json, tokenizer files   optional: of the T5 that both began as (t5-base), no weights

as vec2text's own `save_pretrained` and `save_model` write them. Without `t5/`, the checkpoint's
`model_name_or_path` says where the T5's config and tokenizer are. Weights are safetensors only.
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


ENCODERS = {"gtr_base": "gtr-t5-base", "sentence-transformers/all-MiniLM-L6-v2": "minilm"}
"""vec2text's `embedder_model_name`: our recipe. Other names that begin `sentence-transformers/` are recipes as they are."""


MODEL_FILES = ("config.json", "*.safetensors")


TOKENIZER_FILES = ("config.json", "tokenizer*.json", "special_tokens_map.json", "*.model", "vocab.json", "vocab.txt", "merges.txt")


REMEDY = "download it where there is a network, and give a folder with inversion/, corrector/ and t5/"


@dataclass(frozen=True)
class Checkpoint:
    """The folders and configs of one checkpoint; no weights are read yet."""

    inversion: Path
    corrector: Path | None
    config: Any
    """The inversion model's `InversionConfig`."""

    t5: Path
    encoder: str
    """Name of the encoder recipe that it inverts."""


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint called `name`: `gtr-base`, the published pair, or a folder. `InputError` says what is missing."""
    import_vec2text()  # before any download
    corrector: Path | None
    if name in PUBLISHED:
        inversion, corrector = (_snapshot(hub_name, MODEL_FILES) for hub_name in PUBLISHED[name])
    else:
        inversion, corrector = Path(name) / "inversion", Path(name) / "corrector"
        if not inversion.is_dir():
            known = ", ".join(f"'{published}'" for published in PUBLISHED)
            raise InputError(f"vec2text decoder {name!r}: expected {known} or a folder that holds inversion/; {inversion} is no folder")
        corrector = corrector if corrector.is_dir() else None
    config = read_config(inversion)
    encoder = _encoder_name(inversion, config)
    if corrector and (other := _encoder_name(corrector, read_config(corrector))) != encoder:
        raise InputError(f"{corrector} corrects vectors of the encoder {other}, {inversion} inverts those of {encoder}: they are no pair")
    local = Path(name) / "t5"
    t5 = local if local.is_dir() else _snapshot(config.model_name_or_path, TOKENIZER_FILES)
    return Checkpoint(inversion, corrector, config, t5, encoder)


def load_models(checkpoint: Checkpoint, dim: int, corrector: bool) -> tuple[Any, Any | None]:
    """The inversion model and, where it is asked for, the corrector; on the CPU, float32, for inference.

    `dim` is the dimension of the encoder's vectors. Raises `InputError` when a file is missing or
    damaged, or does not fit the model that its config describes to the last tensor.
    """
    from transformers import AutoConfig, AutoTokenizer

    for patterns, what in ((("config.json",), "config.json"), (("tokenizer.json", "*.model"), "tokenizer")):
        if not any(any(checkpoint.t5.glob(pattern)) for pattern in patterns):  # transformers would make one up
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
        raise InputError(f"no safetensors weights in {folder}: pickled weights are not loaded; save them as model.safetensors")
    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in files:
            tensors |= load_file(file)
        # A checkpoint repeats its embedder's weights; texts are embedded by `lvm.encode`.
        tensors = {key: value for key, value in tensors.items() if not key.startswith("embedder.")}
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"weights in {folder} do not fit the model that its config describes: {' '.join(str(error).split())}") from error
    state = model.state_dict()
    # T5 ties its embeddings, and safetensors stores a tied tensor once, under any one of its names.
    loaded = {state[key].data_ptr() for key in tensors if key in state}
    missing = [key for key in missing if state[key].data_ptr() not in loaded]
    overwritten = [key for key in tensors if key in state and not torch.equal(state[key], tensors[key].to(state[key].dtype))]
    for fault, keys in (("lack", missing), ("have, unknown to it,", unexpected), ("hold two values for the tied", overwritten)):
        if keys:
            raise InputError(f"weights in {folder} do not fit the model that its config describes: they {fault} {', '.join(keys[:4])}")
    model.eval().requires_grad_(False)


def read_config(folder: Path) -> Any:
    """The `InversionConfig` of a checkpoint; `InputError` when it is none."""
    config_class = import_vec2text().models.config.InversionConfig
    try:
        config = config_class(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"vec2text decoder: {folder}/config.json cannot be read: {error}") from error
    for field in ("model_name_or_path", "max_seq_length", "num_repeat_tokens"):
        if not hasattr(config, field):
            raise InputError(f"vec2text decoder: {folder}/config.json lacks the field {field!r}: not a vec2text checkpoint")
    return config


def _encoder_name(folder: Path, config: Any) -> str:
    name = getattr(config, "embedder_model_name", None)
    if getattr(config, "embedder_model_api", None):
        raise InputError(f"{folder} inverts the remote embedder {config.embedder_model_api!r}, for which there is no encoder recipe")
    if isinstance(name, str) and (name in ENCODERS or name.startswith("sentence-transformers/")):
        return ENCODERS.get(name, f"sentence-transformers:{name}")
    known = ", ".join([*ENCODERS, "sentence-transformers/<name>"])
    raise InputError(f"{folder}/config.json, field 'embedder_model_name': {name!r} is no encoder recipe; expected {known}")


def _snapshot(name: str, patterns: Sequence[str]) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client raises a dozen kinds; all mean that there is no model
        raise InputError(f"vec2text decoder: {name!r} is neither a folder nor reachable on the hub; {REMEDY}: {error}") from error
