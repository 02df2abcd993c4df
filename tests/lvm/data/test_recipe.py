import pytest
from pydantic import ValidationError

from lvm.config import parse
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError

VALUES = {
    "name": "minilm",
    "weights_sha256": "ab" * 32,
    "pooling": "mean",
    "dense": False,
    "normalize": True,
    "max_tokens": 256,
    "dim": 384,
}
OTHER = {"weights_sha256": "cd" * 32, "pooling": "cls", "dense": True, "normalize": False, "max_tokens": 128, "dim": 768}
LATER = {"prompt": "query: ", "modules": "Transformer+Pooling+LayerNorm"}
RECIPE = EncoderRecipe(**VALUES)


def test_every_field_but_the_name_makes_another_encoder():
    assert {*OTHER, *LATER, "name", "golden"} == set(EncoderRecipe.model_fields), "a new field is part of the identity"
    ids = {RECIPE.model_copy(update={field: value}).id for field, value in (OTHER | LATER).items()}
    assert len(ids) == len(OTHER | LATER) and RECIPE.id not in ids


def test_name_is_a_label_and_no_part_of_the_identity():
    renamed = RECIPE.model_copy(update={"name": "sentence-transformers:elsewhere"})
    assert renamed.id == RECIPE.id
    RECIPE.require_same(renamed, "decoder")


def test_field_that_came_later_is_not_written_where_it_is_empty():
    assert RECIPE.model_dump() == VALUES
    assert EncoderRecipe(**VALUES | LATER).model_dump() == VALUES | LATER


def golden(*values: float) -> EncoderRecipe:
    return RECIPE.model_copy(update={"golden": values})


def test_golden_values_are_compared_by_agreement_and_are_no_part_of_the_id():
    recorded = golden(0.6, 0.8, 0.0)
    assert recorded.id == RECIPE.id
    for same in (golden(0.62, 0.78, 0.01), RECIPE):
        recorded.require_same(same, "dataset")
    for other in (golden(0.6, -0.8, 0.0), golden(1.2, 1.6, 0.0), golden(0.6, 0.8), golden(0.0, 0.0, 0.0), golden(0.7, 0.71, 0.0)):
        with pytest.raises(InputError, match=r"^dataset: minilm gives other vectors than minilm did: .* at least 0\.99 is needed"):
            recorded.require_same(other, "dataset")


def test_id_is_stable_from_release_to_release():
    assert RECIPE.id == "d93f3667acb4", "every stored dataset and decoder would become unreadable"


@pytest.mark.parametrize(("field", "value"), OTHER.items())
def test_other_recipe_is_refused_naming_the_field_and_who_asked(field, value):
    other = RECIPE.model_copy(update={field: value, "name": "other"})
    with pytest.raises(InputError) as caught:
        RECIPE.require_same(other, "decoder tiny")
    message = str(caught.value)
    assert message.startswith("decoder tiny:") and RECIPE.id in message and other.id in message
    assert f"{field}: {VALUES[field]} against {value}." in message
    assert not any(f"{unchanged}: " in message for unchanged in OTHER if unchanged != field)


@pytest.mark.parametrize("change", [{"dim": 0}, {"max_tokens": -1}, {"propmt": "query: "}, {"pooling": None}])
def test_impossible_or_unknown_field_is_refused_by_name(change):
    with pytest.raises(InputError, match=next(iter(change))):
        parse(EncoderRecipe, VALUES | change)


def test_missing_field_is_refused_by_name():
    with pytest.raises(InputError, match="normalize"):
        parse(EncoderRecipe, {key: value for key, value in VALUES.items() if key != "normalize"})


def test_recipe_cannot_be_changed():
    with pytest.raises(ValidationError):
        RECIPE.dim = 768


def test_recipe_survives_json():
    assert EncoderRecipe.model_validate_json(RECIPE.model_dump_json()) == RECIPE


def test_stored_dataset_is_refused_by_a_decoder_of_another_recipe(dataset):
    wanted = dataset.manifest.recipe.model_copy(update={"normalize": False})
    with pytest.raises(InputError, match="normalize: True against False"):
        dataset.manifest.recipe.require_same(wanted, "dataset")
