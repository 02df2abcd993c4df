"""Folders of small encoders with random weights, made and saved by the libraries that people make theirs with."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

WIDTH = 16

TEXTS = [
    "Peace and commerce with all nations.",
    "The public debt has been reduced.",
    "query: our trade was never larger than in the year that has passed",
    "The harvest was poor, and bread became dear; but the fleet sailed for the islands in the spring, as it does each year.",
    "Trade.",
]


def word_tokenizer(texts: Iterable[str] = TEXTS, special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")) -> Tokenizer:
    """A tokenizer of lower-case words and signs; with `[CLS]` among `special`, it frames a text in [CLS] and [SEP]."""
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=list(special)))
    if "[CLS]" in special:
        frame = [(name, words.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=frame)
    return words


def bert(folder: Path, longest: int = 32) -> Transformer:
    """A BERT of one layer that reads `longest` tokens."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=longest,
    )
    size = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=longest, **size)
    return _transformer(folder, BertModel(config), tokenizer)


def gpt(folder: Path) -> Transformer:
    """A causal model of one layer, whose tokenizer has no padding token."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(special=("[UNK]",)), unk_token="[UNK]", model_max_length=32)
    return _transformer(
        folder, GPT2Model(GPT2Config(vocab_size=len(tokenizer), n_positions=32, n_embd=WIDTH, n_layer=1, n_head=2)), tokenizer
    )


def _transformer(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> Transformer:
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5)  # the libraries' own beginnings give nearly the same vector to every text
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Transformer(str(folder))


def save_encoder(folder: Path, *modules: Any, **kwargs: Any) -> str:
    """Save the modules as a sentence-transformers folder; returns the encoder's name."""
    SentenceTransformer(modules=list(modules), device="cpu", **kwargs).save(str(folder))
    return f"sentence-transformers:{folder}"
