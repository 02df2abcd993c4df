"""The record of an evaluation stays with the model."""

import pytest

from lvm.errors import InputError
from lvm.evaluation.record import FILE, read_record, write_record


def test_record_comes_back_as_it_was_and_the_later_one_counts(tmp_path):
    assert read_record(tmp_path) is None
    for value in (0.1, 0.2):
        write_record(tmp_path, "abc", [{"name": "collapse", "passed": True}], {"metrics": {}}, {"metrics": {"cosine": {"value": value}}})
    found = read_record(tmp_path)
    assert found == {
        "dataset_digest": "abc",
        "gates": [{"name": "collapse", "passed": True}],
        "val": {"metrics": {}},
        "test": {"metrics": {"cosine": {"value": 0.2}}},
    }


def test_damaged_record_is_refused_with_the_remedy(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(InputError, match=r"verdict\.json is damaged .* promote the model again"):
        read_record(tmp_path)
