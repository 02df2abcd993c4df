"""Tiny vec2text checkpoints: real models of the library in its own files, trained here in seconds."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from lvm.data.encoders import Encoder
from lvm.decoding.vec2text.decoder import Vec2TextDecoder
from lvm.decoding.vec2text.repairs import build_corrector, build_inversion, import_vec2text

TOKENS = 32
EMBEDDERS = {384: "sentence-transformers/all-MiniLM-L6-v2", 768: "gtr_base"}
"""vec2text's name of the encoder of each dimension."""

CONFIG = {
    "model_name_or_path": "t5-base",
    "embedder_model_api": None,
    "embedder_fake_with_zeros": False,
    "embedder_no_grad": True,
    "use_frozen_embeddings_as_input": True,
    "encoder_dropout_disabled": False,
    "decoder_dropout_disabled": False,
    "embeddings_from_layer_n": None,
    "use_lora": False,
    "max_seq_length": TOKENS,
    "num_repeat_tokens": 4,
    "corrector_ignore_hypothesis_embedding": False,
}


@dataclass
class Trained:
    """A checkpoint trained on `texts`, and an untrained one of the same shape."""

    folder: Path
    untrained: Path
    encoder: Encoder
    losses: tuple[list[float], list[float]]
    texts: list[str]
    vectors: np.ndarray

    def decoder(self, steps: int | None = None, beam: int = 1) -> Vec2TextDecoder:
        return Vec2TextDecoder(str(self.folder), "cpu", steps, self.encoder, beam)


def make_tokenizer(texts: list[str], folder: Path) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 600 tokens with T5's special tokens, saved to `folder`."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet))
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_gtr(texts: list[str], folder: Path) -> Path:
    """A random T5 encoder as wide as GTR-T5, laid out as its folder on the hub."""
    tokenizer = make_tokenizer(texts, folder)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=768, d_kv=32, d_ff=64, num_layers=1, num_heads=2)).save_pretrained(folder)
    return folder


def t5_config(tokenizer: PreTrainedTokenizerFast, decoder_layers: int = 1) -> T5Config:
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=1,
        num_decoder_layers=decoder_layers,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        tie_word_embeddings=True,
    )


def make_checkpoint(
    folder: Path, encoder: Encoder, embedder: str, texts: list[str], steps: tuple[int, int] = (0, 0), decoder_layers: int = 1
) -> tuple[list[float], list[float]]:
    """Train an inversion model and a corrector on `texts`, save them as the library does and return their losses."""
    from lvm.decoding.vec2text.loop import CorrectionLoop  # imports the optional library

    vec2text = import_vec2text()
    tokenizer = make_tokenizer(texts, folder / "t5")
    backbone = t5_config(tokenizer, decoder_layers)
    backbone.save_pretrained(folder / "t5")
    config = vec2text.models.config.InversionConfig(**CONFIG, embedder_model_name=embedder)
    torch.manual_seed(0)
    inversion = build_inversion(config, copy.deepcopy(backbone), tokenizer, encoder.recipe.dim)
    corrector = build_corrector(config, copy.deepcopy(backbone), encoder.recipe.dim)
    vectors = torch.from_numpy(encoder.encode(texts))
    labels = tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt").input_ids
    labels[labels == tokenizer.pad_token_id] = -100
    nothing = {"embedder_input_ids": None, "embedder_attention_mask": None}
    losses = _train(inversion, steps[0], lambda: inversion(**nothing, labels=labels, frozen_embeddings=vectors))
    loop = CorrectionLoop(inversion.eval(), corrector, encoder)
    loop._start(vectors)
    with torch.no_grad():
        _, ids, mask, embedded = loop._get_hypothesis_uncached({"frozen_embeddings": vectors})
    corrected = _train(corrector, steps[1], lambda: corrector(vectors, embedded, ids, mask, labels))
    inversion.save_pretrained(folder / "inversion")
    corrector.save_pretrained(folder / "corrector")
    return losses, corrected


def _train(model: torch.nn.Module, steps: int, forward: Callable[[], Any]) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = forward().loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def make_trained(encoder: Encoder, texts: list[str], folder: Path, steps: tuple[int, int] = (26, 50)) -> Trained:
    """Train a checkpoint on `texts` for so many steps of its inversion model and its corrector."""
    embedder = EMBEDDERS[encoder.recipe.dim]
    losses = make_checkpoint(folder / "trained", encoder, embedder, texts, steps=steps)
    make_checkpoint(folder / "untrained", encoder, embedder, texts)
    return Trained(folder / "trained", folder / "untrained", encoder, losses, texts, encoder.encode(texts))


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
