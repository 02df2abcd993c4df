"""A tiny inverter that knows a few sentences by heart, for the tests of whatever needs one that can write."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lvm.config import DecoderTrainConfig, read_settings
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter import trainer as training
from lvm.decoding.inverter.folder import save_decoder
from lvm.decoding.inverter.holdout import TrainingTexts
from lvm.decoding.inverter.tokens import train_tokenizer
from lvm.decoding.inverter.trainer import InverterTrainer
from lvm.training.distributed import Ranks
from tests.support.shared import one_at_a_time

CPU = torch.device("cpu")
SETTINGS = (
    "model.width=64",
    "model.feed_forward=128",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "model.prefix=4",
    "model.vocabulary=400",
    "model.max_tokens=24",
    "texts=64",
    "batch=16",
)
HEART = (
    "model.vocabulary=600",
    "model.dropout=0",
    "rounds=2",
    "passes=24",
    "batch=32",
    "noise=0.1",
    "learning_rate=0.01",
    "spans=0",
    "splices=0",
)


def tiny(*extra: str) -> DecoderTrainConfig:
    return read_settings(assignments=[*(f"decoder.{setting}" for setting in (*SETTINGS, *extra))]).decoder


@contextmanager
def quickly() -> Iterator[pytest.MonkeyPatch]:
    """One thread, so that everything repeats, and few texts beside those that are learned."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SAMPLE", 64)
        patch.setattr(training, "MEASURED", 8)
        yield patch
    torch.set_num_threads(threads)


class BagEncoder:
    """Instead of `encoder`, under its recipe, where only the training around it is tested: bags of words, at no cost."""

    def __init__(self, encoder: Encoder) -> None:
        self.recipe, self.tokenizer, self.dtype, self.group = encoder.recipe, encoder.tokenizer, encoder.dtype, encoder.group

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.full((len(texts), self.recipe.dim), 0.01, np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.split():
                row[zlib.crc32(word.encode()) % self.recipe.dim] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True)
class Learned:
    """A decoder and what it learned."""

    folder: Path
    texts: list[str]


def heart_trainer(dataset: Dataset, encoder: Encoder, folder: Path, texts: list[str]) -> InverterTrainer:
    """A trainer that meets `texts`, 32 of them, twice in every pass, and is measured on those very texts."""
    config = tiny(*HEART)
    tokenizer = train_tokenizer(dataset.texts(dataset.rows("train")), config.model.vocabulary)
    found = TrainingTexts(texts * 2, ["heart"] * 64, 0, 0, frozenset())
    return InverterTrainer(config, found, texts, encoder, tokenizer, folder, "heart", CPU, Ranks(), lambda event: None)


def by_heart(dataset: Dataset, encoder: Encoder) -> Learned:
    """The decoder that tests share; read-only, made once for all test processes."""
    out = dataset.path.with_name(f"{dataset.path.name}-decoder")
    short = [text for text in dict.fromkeys(dataset.texts(dataset.rows("train"))) if 15 < len(text) < 50][:32]
    with one_at_a_time(out):
        if not (out / "config.json").exists():
            with quickly():
                trainer = heart_trainer(dataset, encoder, out / "training", short)
                trainer.run()
            known = trainer.measured
            save_decoder(out, trainer.model, trainer.tokenizer, trainer.config, encoder.recipe, dataset.manifest.digest, [], known, "tiny")
    return Learned(out, short)
