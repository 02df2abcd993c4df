"""`lvm import`: a dataset of vectors that exist already works like an extracted one, with and without texts."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import lvm.decoding.evaluate as decoding
from lvm.data.dataset import Dataset, open_dataset
from tests.support import own_vectors as own
from tests.support.commands import SMALL, lvm, refusal


def exported(dataset: Dataset, with_texts: bool) -> dict:
    """The chunks of a dataset as another tool would keep them, in any order."""
    order = np.random.default_rng(0).permutation(dataset.n_rows)
    chunks = dataset.table.take(pa.array(order))
    columns = {
        "docid": chunks.column("doc_id"),
        "position": chunks.column("chunk_index"),
        "collection": chunks.column("source"),
        "vector": np.asarray(dataset.vectors)[order],
    }
    return columns | ({"content": chunks.column("text")} if with_texts else {})


@pytest.fixture(scope="session")
def recipe(dataset, tmp_path_factory) -> Path:
    return own.recipe_file(tmp_path_factory.mktemp("recipe") / "minilm.json", dataset.manifest.recipe)


@pytest.fixture(scope="session")
def imported(dataset, recipe, tmp_path_factory):
    """The session's dataset, exported with texts and imported again."""
    folder = tmp_path_factory.mktemp("imported")
    path = own.parquet(folder / "vectors.parquet", exported(dataset, True))
    return lvm("import", path, "--recipe", recipe, "--out", folder / "data", "--json", "--device", "cpu"), folder / "data"


@pytest.fixture(scope="session")
def textless(dataset, recipe, tmp_path_factory):
    """The same without texts."""
    folder = tmp_path_factory.mktemp("textless")
    path = own.parquet(folder / "vectors.parquet", exported(dataset, False))
    finished = lvm("import", path, "--recipe", recipe, "--out", folder / "data", "--device", "cpu")
    assert finished.code == 0, finished.err
    return finished, folder / "data"


def test_an_exported_dataset_comes_back_with_its_vectors_texts_and_splits(dataset, imported):
    finished, path = imported
    assert finished.code == 0, finished.err
    found = open_dataset(path)
    np.testing.assert_array_equal(found.vectors, dataset.vectors)
    for column in ("doc_id", "chunk_index", "source", "split", "text"):
        assert found.table.column(column).to_pylist() == dataset.table.column(column).to_pylist()
    assert finished.json["documents"] == dataset.manifest.documents
    assert finished.json["columns"] == {
        "doc_id": "docid", "chunk_index": "position", "source": "collection", "embedding": "vector", "text": "content",
    }  # fmt: skip


def test_texts_are_encoded_again_and_the_agreement_is_told(imported):
    (told,) = (remark for remark in imported[0].json["remarks"] if "encoded again" in remark)
    assert re.match(r"32 texts, encoded again by minilm, agree with their vectors to (0\.999|1\.000)", told)


def test_gates_say_of_it_what_they_say_of_the_extracted_one(dataset, imported):
    one, two = (lvm("diagnose", path, "--decoder", "auto", "--json", "--device", "cpu") for path in (dataset.path, imported[1]))
    assert one.code == two.code == 0
    names = [[(gate["name"], gate["passed"]) for gate in found.json["gates"]] for found in (one, two)]
    assert names[0] == names[1] and ("encoder_contract", True) in names[1]


def test_models_are_validated_on_it_as_on_the_extracted_one_and_their_predictions_decoded(dataset, imported, trained_lstm, monkeypatch):
    monkeypatch.setattr(decoding, "WINDOWS", 4)
    command = "--model", trained_lstm[1], "--split", "val", "--json", "--device", "cpu"
    found, extracted = (lvm("validate", path, *command).json for path in (imported[1], dataset.path))
    assert found["metrics"] == extracted["metrics"]
    assert found["decode"]["arms"] == extracted["decode"]["arms"], "tokens were counted for the scores by length"
    assert found["looks"] == extracted["looks"]


@pytest.mark.slow
@pytest.mark.parametrize("texts", ["imported", "textless"])
def test_a_model_trains_on_it(texts, request, tmp_path):
    data = request.getfixturevalue(texts)[1]
    assert lvm("train", data, "--arch", "lstm", "--out", tmp_path / "lstm", *SMALL, "--json").code == 0
    assert lvm("validate", data, "--model", tmp_path / "lstm", "--decoder", "none", "--json").code == 0


def test_without_texts_data_and_models_are_checked_and_nothing_is_decoded(textless, trained_lstm):
    finished, data = textless
    assert "There are no texts: documents with equal vectors were kept in one split" in finished.out
    assert lvm("diagnose", data, "--device", "cpu", "--json").code == 0
    validated = lvm("validate", data, "--model", trained_lstm[1], "--split", "test", "--device", "cpu")
    assert validated.code == 0, validated.err
    assert f"Nothing is decoded: dataset {data} holds vectors without texts" in validated.out + validated.err
    assert "The test documents of this split were looked at by 1 configuration" in validated.out


@pytest.mark.parametrize(
    "command",
    [
        ["validate", "DATA", "--model", "MODEL", "--decoder", "minilm"],
        ["diagnose", "DATA", "--decoder", "minilm"],
        ["train-decoder", "DATA", "--out", "OUT"],
        ["generate", "--model", "MODEL", "--text-file", "TEXTS", "--dataset", "DATA"],
    ],
)
def test_what_needs_texts_says_so_in_one_sentence(command, textless, trained_lstm, tmp_path):
    (tmp_path / "texts.txt").write_text("Fellow citizens.\nWe meet again.")
    places = {"DATA": textless[1], "MODEL": trained_lstm[1], "OUT": tmp_path / "out", "TEXTS": tmp_path / "texts.txt"}
    said = refusal(lvm(*(places.get(word, word) for word in command), "--device", "cpu"))
    assert "holds vectors without texts, which are needed here: import it again from a table with a column 'text'" in said


def test_vectors_of_another_encoder_than_the_declared_one_are_refused(dataset, recipe, tmp_path, untouched):
    columns = exported(dataset, True)
    turned = np.roll(columns["vector"], 1, axis=1)
    path = own.parquet(tmp_path / "vectors.parquet", columns | {"vector": turned})
    said = refusal(lvm("import", path, "--recipe", recipe, "--out", untouched, "--device", "cpu"))
    assert said.startswith("32 of 32 texts, encoded again by minilm, agree with their vectors to less than 0.99")


def test_a_recipe_that_is_not_the_one_of_its_name_is_refused(dataset, tmp_path, untouched):
    path = own.parquet(tmp_path / "vectors.parquet", exported(dataset, True))
    declared = own.recipe_file(tmp_path / "recipe.json", dataset.manifest.recipe.model_copy(update={"pooling": "cls"}))
    said = refusal(lvm("import", path, "--recipe", declared, "--out", untouched, "--device", "cpu"))
    assert "recipe's name is 'minilm'" in said and "pooling: mean against cls" in said


def test_where_the_encoder_is_not_at_hand_that_is_told(tmp_path):
    path = own.parquet(tmp_path / "vectors.parquet", own.documents([3] * 6))
    declared = own.recipe_file(tmp_path / "recipe.json", own.recipe())
    finished = lvm("import", path, "--recipe", declared, "--out", tmp_path / "out", "--set", "splits.salt=x")
    assert finished.code == 0, finished.err
    assert "Not checked: whether the vectors are those of the recipe, since its encoder is not at hand" in finished.out
    assert f"Next: lvm diagnose {tmp_path / 'out'}" in finished.out
    assert open_dataset(tmp_path / "out").manifest.splits.salt == "x"


def test_columns_are_named_on_the_command_line(tmp_path):
    columns = {f"my_{name}": values for name, values in own.documents([3] * 6).items()}
    path = own.parquet(tmp_path / "vectors.parquet", columns)
    declared = own.recipe_file(tmp_path / "recipe.json", own.recipe())
    named = [word for name in ("doc_id", "chunk_index", "text", "embedding") for word in ("--column", f"{name}=my_{name}")]
    assert lvm("import", path, "--recipe", declared, "--out", tmp_path / "out", *named).code == 0
    said = refusal(lvm("import", path, "--recipe", declared, "--out", tmp_path / "other", *named[2:]))
    assert said.endswith("there are my_doc_id, my_chunk_index, my_text, my_embedding: name one by --column doc_id=COLUMN")
