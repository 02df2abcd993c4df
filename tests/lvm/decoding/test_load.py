"""The right decoder is chosen without loading one, and opening it checks it against the dataset's vectors."""

from dataclasses import replace

import pytest

import lvm.decoding.load
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.load import SHIPPED, LoadedDecoder, NoDecoder, choose_decoder, no_decoder_reason, open_decoder, recipe_folder
from lvm.errors import InputError
from tests.support.lookup_decoder import ConstantDecoder, loader


def test_the_shipped_decoder_is_chosen_for_the_default_encoder_and_for_no_other(encoder: Encoder) -> None:
    assert encoder.recipe.id == SHIPPED.id
    assert choose_decoder("auto", encoder.recipe) == "minilm"
    for change in ({"pooling": "cls"}, {"normalize": False}, {"weights_sha256": "0" * 64}):
        assert choose_decoder("auto", encoder.recipe.model_copy(update=change)) is None


def test_a_decoder_given_by_name_is_chosen_whatever_the_recipe(encoder: Encoder) -> None:
    other = encoder.recipe.model_copy(update={"pooling": "cls"})
    for name in ("minilm", "decoders/mine", "vec2text:gtr-base"):
        assert choose_decoder(name, other) == name
    assert choose_decoder("none", encoder.recipe) is None


def test_the_reason_for_having_no_decoder_names_the_command_that_trains_one(encoder: Encoder) -> None:
    gtr = encoder.recipe.model_copy(update={"name": "gtr-t5-base", "normalize": False})
    reason = no_decoder_reason("auto", gtr, "data/x")
    assert reason.startswith(f"No decoder for the recipe {gtr.name} ({gtr.id})") and "nothing is decoded" in reason
    assert f"'lvm train-decoder data/x --out decoders/{gtr.name}'" in reason
    assert no_decoder_reason("none", gtr, "data/x") == "Nothing is decoded, as asked"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("minilm", "minilm"),
        ("gtr-t5-base", "gtr-t5-base"),
        ("sentence-transformers:some/model-v1.5", "model-v1.5"),
        ("sentence-transformers:/models/my encoder/", "my-encoder"),
    ],
)
def test_the_folder_name_of_an_encoder_is_one_part_of_a_path(name: str, expected: str) -> None:
    assert recipe_folder(SHIPPED.model_copy(update={"name": name})) == expected


# Opening


def test_an_opened_decoder_comes_with_its_contract(dataset: Dataset, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, calls = ConstantDecoder(encoder), list[str]()
    monkeypatch.setattr(lvm.decoding.load, "load_decoder", loader(decoder, calls))
    loaded = open_decoder("auto", dataset)
    assert isinstance(loaded, LoadedDecoder) and loaded.decoder is decoder
    assert (loaded.name, calls) == ("minilm", ["minilm"])
    assert (loaded.contract.name, loaded.contract.passed) == ("encoder_contract", True)
    flipped = open_decoder("auto", replace(dataset, vectors=dataset.vectors[:, ::-1]))
    assert isinstance(flipped, LoadedDecoder) and not flipped.contract.passed, "the caller decides what to do about it"


def test_a_decoder_of_another_recipe_is_refused(dataset: Dataset, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = ConstantDecoder(encoder)
    decoder.recipe = encoder.recipe.model_copy(update={"normalize": False})
    monkeypatch.setattr(lvm.decoding.load, "load_decoder", loader(decoder))
    with pytest.raises(InputError, match="normalize: False against True"):
        open_decoder("decoders/mine", dataset)


def test_nothing_is_loaded_when_there_is_no_decoder(dataset: Dataset, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[str]()
    monkeypatch.setattr(lvm.decoding.load, "load_decoder", loader(ConstantDecoder(encoder), calls))
    assert open_decoder("none", dataset) == NoDecoder("Nothing is decoded, as asked")
    monkeypatch.setattr(lvm.decoding.load, "SHIPPED", encoder.recipe.model_copy(update={"pooling": "cls"}))
    found = open_decoder("auto", dataset)
    assert isinstance(found, NoDecoder) and f"lvm train-decoder {dataset.path} --out decoders/minilm" in found.reason
    assert calls == []
