"""What vec2text 0.0.13 (January 2025) needs before it runs on transformers 5, and nothing more.

The library's models and its correction loop are used as they are. Here are the import, which
leaves this process as it was, and the repairs, each with its reason. The library is optional:
nothing here imports it until a vec2text decoder is asked for.
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


def import_vec2text() -> Any:
    """The library. `InputError` with the command that installs it when it, or a part of it, is not there."""
    with _process_left_as_it_was():
        try:
            return importlib.import_module("vec2text")
        except ImportError as error:
            raise InputError(f'a vec2text decoder needs the optional library: pip install "lvm-pipeline[vec2text]" ({error})') from error


@contextmanager
def _process_left_as_it_was() -> Iterator[None]:
    # The import switches off parallel tokenizing (TOKENIZERS_PARALLELISM) and transformers' warnings for
    # the whole process, and switches on the compiler's log, although only its training needs any of them.
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
    # The constructor calls `from_pretrained` for its T5 and its embedder, which transformers 5 refuses inside
    # another `from_pretrained`, and would download the weights only to overwrite them. The embedder is not
    # built at all: given a folder the library would take a BERT's pooler_output for its embedding, and every
    # text is embedded by `lvm.encode` anyway.
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
    t5 = SimpleNamespace(from_pretrained=lambda name: _t5(backbone))  # the reason stands in `build_inversion`
    with _replaced(
        importlib.import_module("vec2text.models.corrector_encoder"), {"transformers": SimpleNamespace(AutoModelForSeq2SeqLM=t5)}
    ):
        model = vec2text.models.CorrectorEncoderModel(config)
    if dim != CORRECTOR_DIM:
        # The constructor knows OpenAI's 1536 dimensions and takes any other embedder to have 768.
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
        # `generate` of transformers 5 makes both caches as deep as the encoder and then misses a decoder layer's.
        generate = model.generate

        def with_growing_cache(**arguments: Any) -> Any:
            return generate(**arguments, past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()))

        model.generate = with_growing_cache
    return model


class _NoEmbedder(nn.Module):
    """In the place of vec2text's embedder: it tells its width, and embeds nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=dim)


@contextmanager
def _replaced(module: Any, names: dict[str, Any]) -> Iterator[None]:
    """Let `names` of one module of vec2text stand for something else while a model is built."""
    before = {name: getattr(module, name) for name in names}
    try:
        for name, value in names.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
