"""How many configurations have looked at the same test documents.

The best of many evaluations on the same documents looks better than it is, even if nobody meant to choose by it. So whatever evaluates a
model on the split 'test' writes that down here, and reports show the number. One entry is one configuration: a trained model (its settings,
its dataset and its weights) at one context length. To evaluate it again shows nothing new and only raises the entry's `times`; the same
settings trained by other code have other weights, and are a look of their own. Benchmarks count what they compare besides models.

What chooses nothing is not counted: the gates on data and the search for copies read test documents without a model.
"""

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import Field

from lvm.atomic_io import digest_json, locked, write_json_with_digest
from lvm.config import Config, read_versioned
from lvm.data.dataset import Dataset
from lvm.data.vectors import vector_digests
from lvm.models.checkpoint import CheckpointConfig

FORMAT = 1

MANY = 10
"""Configurations from which reports say how to get new test documents. If ten models are equally good, the probability that the whole 95 %
interval of at least one lies above its true value is 1 - .975^10 = .22 where they err independently."""

log = logging.getLogger("lvm.evaluation")


class Look(Config):
    """One configuration that was evaluated on the test documents."""

    name: str
    """What was evaluated, as reports call it."""

    configuration: dict[str, str | int]
    """What tells it from others; its digest is the entry's key."""

    first: str
    """Time of its first evaluation: ISO 8601, UTC."""

    last: str
    """Time of its last evaluation."""

    times: int = Field(ge=1)
    """Number of its evaluations."""


class Looks(Config):
    """Everything that looked at one set of test documents."""

    format: int = FORMAT
    """Version of this layout."""

    documents: int = Field(ge=0)
    """Number of the test documents."""

    configurations: dict[str, Look] = Field(default_factory=dict)
    """By the digest of the configuration."""

    def counts(self, configuration: Mapping[str, str | int]) -> bool:
        """Whether this configuration is among them."""
        return digest_json(dict(configuration)) in self.configurations

    @property
    def sentence(self) -> str:
        """The number for people, and how to get new documents where it is large."""
        count = len(self.configurations)
        told = f"The test documents of this split were looked at by {count} configuration{'' if count == 1 else 's'}"
        if count < MANY:
            return told
        advice = "for new ones extract again with --set splits.salt=TEXT, and train anew"
        return f"{told}: the best of so many looks better than it is; {advice}"


def of_model(model: CheckpointConfig, context_length: int) -> dict[str, str | int]:
    """The configuration of a trained model that is evaluated at `context_length`."""
    settings, weights = digest_json(model.train.model_dump()), model.files["model.safetensors"]
    return {"settings": settings, "dataset": model.dataset_digest, "weights": weights, "context_length": context_length}


def documents_digest(dataset: Dataset) -> str:
    """SHA-256 over ids and texts of the test documents of `dataset`.

    White space does not count, since the chunker rewrites it; it keeps everything else. So the digest depends on the documents alone: it is
    the same for every encoder, chunker and direction of reading, and for every salt that leads to the same documents. Another set of
    documents is another digest, even if they have some in common: the looks at those are then not known. Where no texts were imported,
    the vectors stand for them.
    """
    data = dataset.directed(False)
    docs, rows = data.docs("test"), data.rows("test")
    texts = iter(data.texts(rows) if data.has_texts else map(str, vector_digests(data.vectors[rows]).tolist()))
    found = []
    for doc, length in zip(docs, np.diff(data.starts)[docs], strict=True):
        text = "".join("".join(islice(texts, int(length))).split())
        found.append((data.doc_ids[doc], hashlib.sha256(text.encode()).hexdigest()))
    return digest_json(sorted(found))


def looks_file(dataset: Dataset) -> Path:
    """Where the looks at the test documents of `dataset` are kept: beside its folder, for all datasets there with the same documents."""
    return dataset.path.resolve().parent / "looks" / f"{documents_digest(dataset)}.json"


def read_looks(dataset: Dataset) -> Looks:
    """What has looked at the test documents of `dataset`. Raises `InputError` when the file is damaged."""
    return _read(looks_file(dataset), dataset)


def count_look(dataset: Dataset, split: str, name: str, configuration: Mapping[str, str | int]) -> None:
    """Write down that `configuration` is evaluated on `split` of `dataset`, if that is 'test'; reports call it `name`.

    Safe beside other processes, and durable. Where the file cannot be written, as beside a dataset on a read-only disk, the evaluation goes
    on and a warning is logged: the count is then too low. Raises `InputError` when the file is damaged or the disk full.
    """
    if split != "test":
        return
    file, key = looks_file(dataset), digest_json(dict(configuration))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with locked(file.with_name(f".{file.name}.lock")):
            looks = _read(file, dataset)
            before = looks.configurations.get(key)
            first, times = (before.first, before.times + 1) if before else (now, 1)
            look = Look(name=name, configuration=dict(configuration), first=first, last=now, times=times)
            write_json_with_digest(file, looks.model_copy(update={"configurations": looks.configurations | {key: look}}).model_dump())
    except OSError as error:
        log.warning("a look at the test documents of %s is not counted: %s cannot be written (%s)", dataset.path, file, error.strerror)


def count_model(dataset: Dataset, split: str, model: CheckpointConfig, context_length: int) -> None:
    """`count_look` of a trained model."""
    count_look(dataset, split, model.train.model.name, of_model(model, context_length))


def _read(file: Path, dataset: Dataset) -> Looks:
    if not file.exists():
        return Looks(documents=len(dataset.docs("test")))
    return read_versioned(Looks, file, FORMAT, "restore it, or move it away to count anew")
