"""Folders of encoder models: where they are, which weights they hold, and what a library says when one is damaged."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lvm.errors import InputError

MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Files of a model that are downloaded: no pickled weights."""


def hub_folder(name: str, patterns: tuple[str, ...] = MODEL_FILES) -> Path:
    """A model's folder: `name` itself when it is a folder, else the hub's snapshot; files that match `patterns` are downloaded once."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client raises a dozen types; all mean that the model cannot be had
        raise InputError(f"encoder {name!r} is neither a folder nor reachable on the hub: {error}") from error


def weights_sha256(folder: Path, pattern: str = "**/*.safetensors") -> str:
    """SHA-256 over the weight files below `folder`, in the order of their paths; `InputError` when there is none."""
    files = sorted(folder.glob(pattern))
    if not files:
        raise InputError(f"no safetensors weights in {folder}: pickled weights are not loaded")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def explaining_damage(name: str, folder: Path) -> Iterator[None]:
    """Raise `InputError` for what the libraries raise when a folder is incomplete or damaged."""
    # Without these files transformers makes an empty tokenizer, to which every word is unknown.
    if not any(any(folder.rglob(pattern)) for pattern in ("tokenizer.json", "vocab.*", "*.model")):
        raise InputError(f"encoder {name!r}: {folder} cannot be loaded: it holds no tokenizer")
    try:
        yield
    except Exception as error:  # the libraries raise a dozen types; all mean that this folder, as it is, cannot be loaded
        reason = " ".join(str(error).split())
        raise InputError(f"encoder {name!r}: {folder} cannot be loaded: {reason}") from error


def counting_tokenizer(name: str, wrapped: Any) -> Tokenizer:
    """A copy of a tokenizer that neither truncates nor pads: of one of the library tokenizers, or of a transformers tokenizer's core.

    Raises `InputError` when a transformers tokenizer of the encoder `name` has no such core.
    """
    core = wrapped if isinstance(wrapped, Tokenizer) else getattr(wrapped, "backend_tokenizer", None)
    if not isinstance(core, Tokenizer):
        raise InputError(f"encoder {name!r}: its tokenizer {type(wrapped).__name__} is none of the library tokenizers, which counts tokens")
    tokenizer = Tokenizer.from_str(core.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
