"""The repairs that vec2text 0.0.13 (January 2025) needs to run with transformers 5.

The library's models and its correction loop are used unchanged. This module imports the library without side
effects on the process, and makes the repairs, each with its reason. The library is optional: nothing here
imports it until a vec2text decoder is asked for.
"""

import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from torch import nn

from lvm.errors import InputError

CORRECTOR_DIM = 768
"""Dimension that the library assumes for every embedder it does not know."""


def import_vec2text() -> Any:
    """Import the library. When it or one of its dependencies is missing, `InputError` names the command that installs it."""
    with _process_left_as_it_was():
        try:
            return importlib.import_module("vec2text")
        except ImportError as error:
            raise InputError(f'a vec2text decoder needs the optional library: pip install "lvm-pipeline[vec2text]" ({error})') from error


@contextmanager
def _process_left_as_it_was() -> Iterator[None]:
    # The import switches off parallel tokenizing (TOKENIZERS_PARALLELISM) and transformers' warnings for the whole
    # process, and switches on the compiler's log. Only the library's training needs any of this.
    from transformers.utils import logging as transformers_logging

    environment = {name: os.environ.get(name) for name in ("TOKENIZERS_PARALLELISM", "WANDB__SERVICE_WAIT", "_WANDB_STARTUP_DEBUG")}
    verbosity, compiler = transformers_logging.get_verbosity(), logging.getLogger("torch._dynamo")
    level = compiler.level
    try:
        yield
    finally:
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        transformers_logging.set_verbosity(verbosity)
        compiler.setLevel(level)


def build_inversion(config: Any, backbone: Any, tokenizer: Any, dim: int) -> Any:
    """An `InversionModel` of vec2text with random weights.

    `config` is its `InversionConfig`, `backbone` the transformers config of its T5, `tokenizer`
    that T5's tokenizer and `dim` the dimension of the vectors that it inverts.
    """
    vec2text = import_vec2text()
    # The constructor calls `from_pretrained` for its T5 and its embedder. transformers 5 refuses that inside
    # another `from_pretrained`, and it would download weights only to overwrite them. The embedder is not built:
    # given a folder, the library would use a BERT's pooler_output as its embedding, and our encoder embeds every
    # text anyway.
    loaders = {
        "load_encoder_decoder": lambda model_name, lora: _t5(backbone),
        "load_embedder_and_tokenizer": lambda name, torch_dtype: (_NoEmbedder(dim), None),
        "load_tokenizer": lambda name, max_length: tokenizer,
    }
    with _replaced(importlib.import_module("vec2text.models.inversion"), loaders):
        return vec2text.models.InversionModel(config)


def build_corrector(config: Any, backbone: Any, dim: int) -> Any:
    """A `CorrectorEncoderModel` of vec2text with random weights. Arguments as for `build_inversion`."""
    vec2text = import_vec2text()
    t5 = SimpleNamespace(from_pretrained=lambda name: _t5(backbone))  # for the reason given in `build_inversion`
    with _replaced(
        importlib.import_module("vec2text.models.corrector_encoder"), {"transformers": SimpleNamespace(AutoModelForSeq2SeqLM=t5)}
    ):
        model = vec2text.models.CorrectorEncoderModel(config)
    if dim != CORRECTOR_DIM:
        # The constructor knows OpenAI's 1536 dimensions and assumes 768 for any other embedder.
        model.embedder_dim = dim
        for name in ("embedding_transform_1", "embedding_transform_2", "embedding_transform_3"):
            _, dropout, activation, last = getattr(model, name)
            setattr(model, name, nn.Sequential(nn.Linear(dim, dim), dropout, activation, nn.Linear(dim, last.out_features)))
    return model


def _t5(backbone: Any) -> Any:
    from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache

    model: Any = AutoModelForSeq2SeqLM.from_config(backbone)
    # `Corrector._generate_with_beam` raises a length to this power; transformers 5 leaves it unset.
    model.generation_config.length_penalty = 1.0
    if backbone.num_layers != backbone.num_decoder_layers:
        # `generate` of transformers 5 creates both caches with as many layers as the encoder has, which is too few for a deeper decoder.
        generate = model.generate

        def with_growing_cache(**arguments: Any) -> Any:
            return generate(**arguments, past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()))

        model.generate = with_growing_cache
    return model


class _NoEmbedder(nn.Module):
    """Replaces vec2text's embedder: it has a width and embeds nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=dim)


@contextmanager
def _replaced(module: Any, names: dict[str, Any]) -> Iterator[None]:
    """Replace `names` of one vec2text module by other objects while a model is built."""
    before = {name: getattr(module, name) for name in names}
    try:
        for name, value in names.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
