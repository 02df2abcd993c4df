"""The decoder that is meant is found without loading one, and where there is none that is said."""

import pytest

from lvm.data.encoders import Encoder
from lvm.decoding.load import SHIPPED, choose_decoder, label, without_decoder


def test_the_shipped_decoder_is_chosen_for_the_embedded_encoder_and_for_no_other(encoder: Encoder) -> None:
    assert encoder.recipe.id == SHIPPED.id
    assert choose_decoder("auto", encoder.recipe) == "minilm"
    for change in ({"pooling": "cls"}, {"normalize": False}, {"weights_sha256": "0" * 64}):
        assert choose_decoder("auto", encoder.recipe.model_copy(update=change)) is None


def test_what_is_asked_for_by_name_is_meant_whatever_the_recipe(encoder: Encoder) -> None:
    other = encoder.recipe.model_copy(update={"pooling": "cls"})
    for name in ("minilm", "decoders/mine", "vec2text:gtr-base"):
        assert choose_decoder(name, other) == name
    assert choose_decoder("none", encoder.recipe) is None


def test_the_reason_for_no_text_names_the_command_that_makes_a_decoder(encoder: Encoder) -> None:
    gtr = encoder.recipe.model_copy(update={"name": "gtr-t5-base", "normalize": False})
    reason = without_decoder("auto", gtr, "data/x")
    assert reason.startswith(f"No decoder for the recipe {gtr.name} ({gtr.id})") and "nothing is decoded" in reason
    assert f"'lvm train-decoder data/x --out decoders/{gtr.name}'" in reason
    assert without_decoder("none", gtr, "data/x") == "Nothing is decoded, as asked"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("minilm", "minilm"),
        ("gtr-t5-base", "gtr-t5-base"),
        ("sentence-transformers:some/model-v1.5", "model-v1.5"),
        ("sentence-transformers:/models/my encoder/", "my-encoder"),
    ],
)
def test_the_label_of_an_encoder_is_one_part_of_a_path(name: str, expected: str) -> None:
    assert label(SHIPPED.model_copy(update={"name": name})) == expected
