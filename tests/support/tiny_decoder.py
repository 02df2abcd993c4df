"""Tiny inverters and their trainings, and one that knows a few sentences by heart."""

import json
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
from lvm.decoding.inverter import train, trainer
from lvm.decoding.inverter.folder import save_decoder
from lvm.decoding.inverter.holdout import TrainingTexts
from lvm.decoding.inverter.tokens import train_tokenizer
from lvm.decoding.inverter.trainer import InverterTrainer
from lvm.training.distributed import Ranks
from lvm.training.metrics_log import Event
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
SHORT = ("rounds=3", "passes=1", "correct_from=0.3", "batch=32", "model.dropout=0.1")
"""A training of three rounds of two steps."""

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
    return read_settings(assignments=[f"decoder.{setting}" for setting in (*SETTINGS, *extra)]).decoder


def set_options(*settings: str) -> list[str]:
    """`settings` as options of `lvm train-decoder`."""
    return [f"--set=decoder.{setting}" for setting in settings]


class Killed(Exception):
    """Raised by a test in place of a kill."""


def events(out: Path) -> list[Event]:
    """The lines of the metrics of the training in `out`."""
    return [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@contextmanager
def quickly() -> Iterator[pytest.MonkeyPatch]:
    """One thread, so that everything repeats, and few texts besides those that are learned."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "SAMPLE", 64)
        patch.setattr(train, "VALIDATION_TEXTS", 8)
        yield patch
    torch.set_num_threads(threads)


class BagEncoder:
    """Replaces `encoder`, under its recipe, where only the training around it is tested: bags of words, at no cost."""

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
    """A trainer that reads the 32 `texts` twice in every pass and is validated on the same texts."""
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
                heart = heart_trainer(dataset, encoder, out / "training", short)
                heart.run()
            digest = dataset.manifest.digest
            save_decoder(out, heart.model, heart.tokenizer, heart.config, encoder.recipe, digest, [], heart.metrics, "tiny")
    return Learned(out, short)
