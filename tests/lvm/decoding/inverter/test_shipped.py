"""The decoder that comes with this package is whole, small, says what it is, and writes what real sentences' vectors mean."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter.decoder import shipped
from lvm.decoding.inverter.folder import load_decoder_folder
from lvm.decoding.load import SHIPPED, load_decoder
from lvm.decoding.protocol import Decoded
from lvm.decoding.text_metrics import text_scores

TEXTS = 12


def test_it_is_whole_and_inverts_the_embedded_encoder() -> None:
    found = load_decoder_folder(shipped("minilm"), torch.device("cpu"))
    assert found.config.recipe.id == SHIPPED.id
    assert found.config.parameters == sum(weight.numel() for weight in found.model.parameters())


def test_it_takes_no_more_than_24_megabytes() -> None:
    assert (shipped("minilm") / "model.safetensors").stat().st_size <= 24_000_000


def test_its_card_says_what_it_learned_from_under_which_terms_and_how_well_it_does() -> None:
    card = (shipped("minilm") / "card.md").read_text(encoding="utf-8")
    config = load_decoder_folder(shipped("minilm"), torch.device("cpu")).config
    for told in ("licence", "lvm train-decoder", "round-trip cosine", config.files["model.safetensors"], config.dataset_digest[:12]):
        assert told in card


@pytest.fixture(scope="module")
def sentences(dataset: Dataset) -> list[str]:
    """Of test documents: a document's split follows from its id, so these were held out from its training too."""
    short = [text for text in dataset.texts(dataset.rows("test")) if 4 <= len(text.split()) <= 20]
    return [short[i] for i in np.random.default_rng(0).permutation(len(short))[:TEXTS]]


def decoded(encoder: Encoder, texts: Sequence[str], steps: int | None) -> Sequence[Decoded]:
    return load_decoder("minilm", steps=steps, encoder=encoder).decode(encoder.encode(texts))


@pytest.mark.slow
def test_sentences_come_back_in_other_words_at_worst_and_corrections_bring_them_nearer(encoder: Encoder, sentences: list[str]) -> None:
    first, corrected = (decoded(encoder, sentences, steps) for steps in (0, None))
    cosines = [np.array([d.roundtrip_cosine for d in found]) for found in (first, corrected)]
    assert cosines[0].mean() > 0.7 and cosines[1].mean() > 0.85
    assert np.all(cosines[1] >= cosines[0] - 1e-5)
    assert text_scores([d.text for d in corrected], sentences).token_f1 > 0.5


def test_a_longer_text_and_words_it_never_saw_are_survived(encoder: Encoder) -> None:
    odd = ["xkcd 9q8w7e zzyzx", "Привет, мир", " ".join(["long"] * 200)]
    assert all(d.text and np.isfinite(d.roundtrip_cosine) for d in decoded(encoder, odd, 1))
