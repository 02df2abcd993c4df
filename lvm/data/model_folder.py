"""Folders of encoder models: where they are, which weights they hold, and what a library says when one is damaged."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tokenizers import Tokenizer

from lvm.errors import InputError


def hub_folder(name: str) -> Path:
    """A model's folder: `name` itself when it is a folder, else the hub's snapshot, which is downloaded once."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
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
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"encoder {name!r}: {folder} cannot be loaded: {error}") from error


def counting_tokenizer(wrapped: Any) -> Tokenizer:
    """A copy of a transformers tokenizer's fast core that neither truncates nor pads."""
    tokenizer = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
