"""What is decoded says how near it is, by the real encoder; a further step never makes it worse."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter.decoder import Inverter, Search
from lvm.decoding.load import load_decoder
from lvm.decoding.protocol import Decoded
from lvm.decoding.text_metrics import text_scores
from lvm.errors import InputError
from tests.support.tiny_decoder import Learned


def decoder(learned: Learned, encoder: Encoder, steps: int | None = None) -> Inverter:
    found = load_decoder(learned.folder, "cpu", steps, encoder)
    assert isinstance(found, Inverter)
    return found


@pytest.fixture(scope="module")
def sought(learned: Learned, encoder: Encoder, dataset: Dataset) -> np.ndarray:
    """Vectors of texts that are known by heart, of texts never seen, and of none: predictions are like the last."""
    known, unseen = encoder.encode(learned.texts[:4]), dataset.vectors[dataset.rows("test")[:4]]
    return np.concatenate([known, unseen, (known + unseen) / 2])


@pytest.fixture(scope="module")
def by_steps(learned: Learned, encoder: Encoder, sought: np.ndarray) -> list[Sequence[Decoded]]:
    """What is found with at most 0, 1, 2 and 3 corrections."""
    return [decoder(learned, encoder, steps).decode(sought) for steps in range(4)]


def cosines(encoder: Encoder, texts: list[str], vectors: np.ndarray) -> np.ndarray:
    found = encoder.encode(texts).astype(np.float64)
    return (found * vectors).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(vectors, axis=1)


def test_texts_known_by_heart_are_recited(learned: Learned, encoder: Encoder) -> None:
    found = decoder(learned, encoder, 1).decode(encoder.encode(learned.texts))
    scores = text_scores([item.text for item in found], learned.texts)
    assert scores.exact > 0.5 and scores.token_f1 > 0.8
    assert all(item.roundtrip_cosine > 0.999 for item, text in zip(found, learned.texts, strict=True) if item.text == text)


def test_roundtrip_cosine_is_that_of_the_real_encoder(by_steps: list[Sequence[Decoded]], encoder: Encoder, sought: np.ndarray) -> None:
    for found in (by_steps[0], by_steps[3]):
        stated = np.array([item.roundtrip_cosine for item in found])
        np.testing.assert_allclose(stated, cosines(encoder, [item.text for item in found], sought), atol=2e-3)
        assert all(type(item.roundtrip_cosine) is float and -1.001 < item.roundtrip_cosine < 1.001 for item in found)


def test_no_vector_gets_a_worse_text_with_more_steps(by_steps: list[Sequence[Decoded]]) -> None:
    cosine = np.array([[item.roundtrip_cosine for item in row] for row in by_steps])
    assert np.all(np.diff(cosine, axis=0) >= 0)
    assert cosine[3].mean() > cosine[0].mean() + 0.01, "corrections help"
    for steps, row in enumerate(by_steps):
        assert all(0 <= item.steps <= steps for item in row)
    assert {item.steps for item in by_steps[0]} == {0} and max(item.steps for item in by_steps[3]) > 0
    for before, after in zip(by_steps[2], by_steps[3], strict=True):
        assert after.steps == 3 or after == before, "a text that remains after a step was not found in it"


def test_a_wider_beam_is_never_worse_at_the_first_step(learned: Learned, encoder: Encoder, sought: np.ndarray) -> None:
    writer = decoder(learned, encoder).writer
    likeliest, many = (Inverter(writer, encoder, Search(0, 1, 1)).decode(sought), Inverter(writer, encoder, Search(1, 1, 8)).decode(sought))
    assert all(b.roundtrip_cosine >= a.roundtrip_cosine for a, b in zip(likeliest, many, strict=True))


def test_same_vectors_give_the_same_texts(
    learned: Learned, encoder: Encoder, sought: np.ndarray, by_steps: list[Sequence[Decoded]]
) -> None:
    loaded = decoder(learned, encoder, 1)
    for _ in range(2):
        torch.manual_seed(99)
        assert loaded.decode(sought) == by_steps[1]


def test_default_is_five_corrections_and_none_is_possible(learned: Learned, encoder: Encoder) -> None:
    assert decoder(learned, encoder).search == Search(5, 1, 8)
    assert decoder(learned, encoder, 0).search.steps == 0


def test_no_vectors_give_no_texts(learned: Learned, encoder: Encoder) -> None:
    assert list(decoder(learned, encoder).decode(np.empty((0, encoder.recipe.dim), np.float32))) == []


def test_vectors_of_any_layout_and_precision_are_read_alike(
    learned: Learned, encoder: Encoder, sought: np.ndarray, by_steps: list[Sequence[Decoded]]
) -> None:
    loaded = decoder(learned, encoder, 0)
    assert loaded.decode(np.asfortranarray(sought.astype(np.float64))) == by_steps[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_that_are_none_are_refused(learned: Learned, encoder: Encoder, sought: np.ndarray, value: float) -> None:
    bad = sought.copy()
    bad[2] = value
    with pytest.raises(InputError, match=rf"vectors \[2\] of {len(bad)} are zero, NaN or infinite"):
        decoder(learned, encoder).decode(bad)


def test_vectors_of_another_dimension_are_refused(learned: Learned, encoder: Encoder) -> None:
    for shape in ((3, 768), (384,)):
        with pytest.raises(InputError, match=r"expected \[n, 384\]"):
            decoder(learned, encoder).decode(np.ones(shape, np.float32))


def test_an_encoder_of_another_recipe_is_refused_before_any_work(learned: Learned, encoder: Encoder) -> None:
    other: Any = SimpleNamespace(recipe=encoder.recipe.model_copy(update={"normalize": False}))
    with pytest.raises(InputError, match=r"decoder .*: encoder recipe .* normalize: True against False"):
        load_decoder(learned.folder, encoder=other)


def test_fewer_than_no_corrections_are_refused(learned: Learned, encoder: Encoder) -> None:
    with pytest.raises(InputError, match="field 'steps' is -1: give 0 or more"):
        load_decoder(learned.folder, steps=-1, encoder=encoder)


def test_encoder_of_the_recipe_is_loaded_where_none_is_given(learned: Learned, encoder: Encoder) -> None:
    loaded = load_decoder(str(learned.folder))
    assert loaded.encoder is not encoder and loaded.recipe.id == loaded.encoder.recipe.id == encoder.recipe.id


def test_a_folder_that_moved_still_loads(
    encoder: Encoder, learned: Learned, sought: np.ndarray, by_steps: list[Sequence[Decoded]], tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(learned.folder, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("training")))
    assert load_decoder(moved, steps=0, encoder=encoder).decode(sought) == by_steps[0]


def test_no_such_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere holds no config.json"):
        load_decoder(tmp_path / "nowhere")
