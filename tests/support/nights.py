"""What a nightly validation needs: a champion with skill, documents that it never saw, and documents unlike any that it was trained on."""

import codecs
import json
import random
from collections.abc import Callable
from pathlib import Path

from lvm.config import train_config
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder
from lvm.data.extract import extract
from lvm.data.sources import Document, iter_source
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from tests.conftest import PARAGRAPHS
from tests.support.trainings import CPU, train_once

SETTINGS = ("model.width=128", "epochs=8", "context_length=3")
"""Large and long enough to beat the baselines on these few documents."""


def champion(dataset: Dataset) -> Checkpoint:
    """A model of `dataset` that beats its baselines; read-only."""
    return load_checkpoint(train_once(dataset, train_config("lstm", dataset.dim, SETTINGS)), CPU)


def addresses(count: int, change: Callable[[list[str]], list[str]] = list) -> dict[str, str]:
    """The first paragraphs of `count` addresses that are not in `small_corpus`; `change` may alter their lines."""
    documents = [item for item in iter_source("builtin:sotu") if isinstance(item, Document)]
    unseen = [document for number, document in enumerate(documents) if number % 5]
    chosen = random.Random(0).sample(unseen, count)
    return {d.doc_id: "\n".join(change([line for line in d.text.splitlines() if line.strip()][:PARAGRAPHS])) for d in chosen}


def rot13(lines: list[str]) -> list[str]:
    """The lines in ROT13: to an encoder, another language."""
    return [codecs.encode(line, "rot13") for line in lines]


def word_salad(lines: list[str]) -> list[str]:
    """The document's words in random order."""
    words = " ".join(lines).split()
    random.Random(len(words)).shuffle(words)
    return [" ".join(words[start : start + 20]).capitalize() + "." for start in range(0, len(words), 20)]


def write_documents(documents: dict[str, str], path: Path) -> Path:
    """Write the documents to `path` as JSON lines; returns `path`."""
    path.write_text("".join(json.dumps({"doc_id": i, "text": text}) + "\n" for i, text in documents.items()), encoding="utf-8")
    return path


def extracted(documents: dict[str, str], folder: Path, encoder: Encoder) -> Dataset:
    """Extract the documents into a dataset below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    extract([str(write_documents(documents, folder / "night.jsonl"))], folder / "data", encoder)
    return open_dataset(folder / "data")
