"""Each gate on a decoder passes the oracle on real text and fails what it was made for."""

from dataclasses import replace

import numpy as np
import pytest

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.decoding.evaluate import DecodedWindows
from lvm.decoding.gates import decoder_abc, encoder_contract
from lvm.errors import InputError
from tests.support.lookup_decoder import ConstantDecoder
from tests.support.poisoned_decoder import Posing, spoilt


def changed(dataset: Dataset, vectors: np.ndarray) -> Dataset:
    return replace(dataset, vectors=vectors.astype(np.float32))


# encoder_contract


def test_the_encoder_of_the_stored_vectors_keeps_the_contract(dataset: Dataset, encoder: Encoder) -> None:
    result = encoder_contract(dataset, ConstantDecoder(encoder))
    assert result.passed and result.severity == "ok"
    assert result.value > 0.9995
    assert result.threshold == 0.999
    assert "64 chunks" in result.reason


def test_another_recipe_is_refused_before_anything_is_embedded(dataset: Dataset, encoder: Encoder) -> None:
    decoder = ConstantDecoder(Posing(encoder))
    decoder.recipe = encoder.recipe.model_copy(update={"pooling": "cls"})
    with pytest.raises(InputError, match="pooling: cls against mean"):
        encoder_contract(dataset, decoder)


def test_an_encoder_that_is_not_the_one_the_decoder_was_trained_on_is_refused(dataset: Dataset, encoder: Encoder) -> None:
    decoder = ConstantDecoder(Posing(encoder))
    decoder.encoder.recipe = encoder.recipe.model_copy(update={"normalize": False})
    with pytest.raises(InputError, match=r"the decoder's own encoder.*normalize: True against False"):
        encoder_contract(dataset, decoder)


def test_another_pooling_under_the_same_name_breaks_the_contract(dataset: Dataset, encoder: Encoder) -> None:
    other = load_encoder("minilm")
    other._model[1].pooling_mode = "cls"  # type: ignore[attr-defined]
    result = encoder_contract(dataset, ConstantDecoder(Posing(encoder, other)))
    assert not result.passed and result.severity == "fail"
    assert result.value < 0.9
    assert "from another encoder than the decoder inverts" in result.reason
    assert any(doc_id in result.reason for doc_id in dataset.doc_ids), "the documents are named"


def test_vectors_that_belong_to_other_texts_break_the_contract(dataset: Dataset, encoder: Encoder) -> None:
    shuffled = changed(dataset, np.random.default_rng(0).permutation(np.array(dataset.vectors)))
    result = encoder_contract(shuffled, ConstantDecoder(encoder))
    assert not result.passed and result.value < 0.5


def test_scale_that_a_cosine_does_not_see_breaks_the_contract(dataset: Dataset, encoder: Encoder) -> None:
    for scale in (2.0, 0.5):
        result = encoder_contract(changed(dataset, dataset.vectors * scale), ConstantDecoder(encoder))
        assert not result.passed
        assert result.value == pytest.approx(0.5, abs=0.01)


def test_a_nan_breaks_the_contract(dataset: Dataset, encoder: Encoder) -> None:
    assert not encoder_contract(changed(dataset, np.full_like(dataset.vectors, np.nan)), ConstantDecoder(encoder)).passed


def test_another_dtype_is_no_other_encoder(dataset: Dataset, encoder: Encoder) -> None:
    other = "bfloat16" if encoder.dtype == "float32" else "float32"
    result = encoder_contract(dataset, ConstantDecoder(load_encoder("minilm", dtype=other)))
    assert result.passed
    assert result.threshold == 0.99 < result.value
    assert f"{other} against {dataset.manifest.encoder_dtype}" in result.reason


# decoder_abc


def test_a_decoder_that_reads_real_vectors_passes_and_the_model_is_to_blame(found: DecodedWindows) -> None:
    result = decoder_abc(found.arms)
    assert result.passed and result.severity == "ok"
    assert result.value > 0.999
    assert result.threshold == GateThresholds().decoder_roundtrip == 0.80
    assert f"round trip of A {found.arms.roundtrip('A'):.3f}, B the same" in result.reason
    assert f"C {found.arms.roundtrip('C'):.3f}" in result.reason
    assert "what C lacks compared with A is due to the model" in result.reason


def test_a_decoder_of_one_text_fails_and_is_to_blame_itself(found: DecodedWindows, encoder: Encoder, dataset: Dataset) -> None:
    result = decoder_abc(spoilt(found.arms, "A", encoder, dataset))
    assert not result.passed and result.severity == "fail"
    assert result.value < 0.4
    assert "Decoding is unavailable because of the decoder, not the model" in result.reason
    assert "lvm train-decoder" in result.remedy


def test_a_model_that_predicts_nothing_useful_does_not_fail_the_decoder(found: DecodedWindows, encoder: Encoder, dataset: Dataset) -> None:
    arms = spoilt(found.arms, "C", encoder, dataset)
    assert arms.roundtrip("C") < 0.4
    assert decoder_abc(arms).passed


def test_a_decoder_without_a_round_trip_fails(found: DecodedWindows) -> None:
    broken = [replace(one, roundtrip_cosine=float("nan")) for one in found.arms.decoded["A"]]
    assert not decoder_abc(replace(found.arms, decoded={**found.arms.decoded, "A": broken})).passed
