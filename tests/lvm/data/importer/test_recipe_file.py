"""The recipe of imported vectors is a file with the manifest's fields, in YAML or JSON; what is wrong with it is one sentence."""

import json

import pytest
import yaml

from lvm.data.importer.recipe_file import read_recipe
from lvm.errors import InputError
from tests.support.own_vectors import recipe


@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump])
def test_a_recipe_is_read_as_it_stands_in_a_manifest(write, tmp_path):
    (tmp_path / "recipe").write_text(write(recipe(384).model_dump()))
    assert read_recipe(tmp_path / "recipe") == recipe(384)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (yaml.safe_dump({k: v for k, v in recipe().model_dump().items() if k != "dim"}), "field 'dim': Field required"),
        (yaml.safe_dump(recipe().model_dump() | {"size": 4}), r"unknown field 'size' \(known: name, weights_sha256"),
        (yaml.safe_dump(recipe().model_dump() | {"dim": 0}), "field 'dim': Input should be greater than 0"),
        ("name: [", "is neither YAML nor JSON"),
        ("minilm", "holds no fields: expected name, weights_sha256"),
        (None, "cannot be read"),
    ],
)
def test_a_recipe_that_is_wrong_is_one_sentence(content, sentence, tmp_path):
    if content is not None:
        (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(InputError, match=f"recipe .*recipe.yaml.* {sentence}") as refused:
        read_recipe(tmp_path / "recipe.yaml")
    assert "\n" not in str(refused.value)
