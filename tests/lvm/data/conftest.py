"""The openings of a few addresses, and the dataset of several shards that is made of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lvm.config import Registry
from lvm.data import shards as module
from lvm.data.extract import extract
from tests.support.corpora import shard_digests, write_lines

DOCUMENTS = 6
PARAGRAPHS = 4


@pytest.fixture(scope="session")
def rows(small_corpus) -> list[dict]:
    """The openings of a few addresses, by doc_id."""
    found = [json.loads(line) for line in small_corpus.read_text(encoding="utf-8").splitlines()[:DOCUMENTS]]
    return [row | {"text": "\n".join(row["text"].splitlines()[:PARAGRAPHS])} for row in found]


@pytest.fixture(scope="session")
def source(rows, tmp_path_factory) -> str:
    """The same documents as a source, in another order."""
    return write_lines(tmp_path_factory.mktemp("openings") / "openings.jsonl", rows[::-1])


@pytest.fixture()
def small_shards(monkeypatch) -> None:
    """Shards of 16 rows in two row groups."""
    monkeypatch.setattr(module, "SHARD_ROWS", 16)
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 8)


@pytest.fixture(scope="session")
def whole(source, encoder, tmp_path_factory) -> Path:
    """The openings as a dataset of several shards, extracted in one go; read-only for tests."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_ROWS", 16)
        patch.setattr(module, "ROW_GROUP_ROWS", 8)
        extract([source], out, encoder)
    assert len(shard_digests(out)) > 3
    return out


@pytest.fixture()
def forgetting() -> Iterator[Callable[[Registry[Any]], None]]:
    """Takes out of a registry, after the test, what the test registers."""
    with pytest.MonkeyPatch.context() as patch:

        def forget(registry: Registry[Any]) -> None:
            registry.names()  # filled by its own modules before it is copied
            patch.setattr(registry, "_entries", dict(registry._entries))
            patch.setattr(registry, "_about", dict(registry._about))

        yield forget
