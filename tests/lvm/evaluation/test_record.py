"""The record of an evaluation stays with the model's weights."""

from pathlib import Path

import pytest

from lvm.errors import InputError
from lvm.evaluation.record import FILE, read_record, write_record
from tests.support.edited import edit_json


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    """A folder with weights and a record of their evaluation."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for value in (0.1, 0.2):
        write_record(tmp_path, "abc", [{"name": "collapse", "passed": True}], {"metrics": {}}, {"metrics": {"cosine": {"value": value}}})
    return tmp_path


def test_record_comes_back_as_it_was_and_the_later_one_counts(model: Path) -> None:
    found = read_record(model)
    assert found is not None and found.pop("weights_sha256")
    assert found == {
        "dataset_digest": "abc",
        "gates": [{"name": "collapse", "passed": True}],
        "val": {"metrics": {}},
        "test": {"metrics": {"cosine": {"value": 0.2}}},
    }


def test_model_that_was_never_evaluated_has_none(model: Path) -> None:
    (model / FILE).unlink()
    assert read_record(model) is None


def test_record_of_earlier_weights_is_not_that_of_the_ones_trained_over_them(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"others")
    assert read_record(model) is None


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_record_is_refused_with_the_remedy(model: Path, content: str) -> None:
    (model / FILE).write_text(content)
    with pytest.raises(InputError, match=r"evaluation\.json.*: promote the model again"):
        read_record(model)


def test_record_with_another_number_or_without_its_digest_is_refused(model: Path) -> None:
    text = (model / FILE).read_text()
    for altered in (text.replace("0.2", "0.3"), text.replace("fields_sha256", "fields_sha257")):
        (model / FILE).write_text(altered)
        with pytest.raises(InputError, match=r"evaluation\.json: field 'fields_sha256' is not the digest of the other fields"):
            read_record(model)


def test_record_changed_with_its_digest_is_read(model: Path) -> None:
    edit_json(model / FILE, lambda values: values.update(dataset_digest="def"))
    assert (read_record(model) or {})["dataset_digest"] == "def"
