"""`--column FIELD=COLUMN`: which column of an input holds which field."""

import pytest

from lvm.data.columns import parse_columns
from lvm.errors import InputError

FIELDS = ("doc_id", "text", "source")


def test_an_assignment_names_the_column_of_a_field():
    assert parse_columns(["doc_id=docid", " text = body=html "], FIELDS) == {"doc_id": "docid", "text": "body=html"}


def test_no_assignment_maps_nothing():
    assert parse_columns([], FIELDS) == {}


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (["docid"], "--column 'docid': write FIELD=COLUMN"),
        (["=docid"], "write FIELD=COLUMN"),
        (["doc_id="], "write FIELD=COLUMN"),
        (["id=docid"], "'id' is not a field that is read here; there are doc_id, text, source"),
        (["doc_id=a", "doc_id=b"], "field 'doc_id' is given twice, as 'a' and as 'b'"),
        (["doc_id=a", "text=a"], "column 'a' is to hold doc_id and text"),
    ],
)
def test_what_is_wrong_with_an_assignment_is_said(assignments, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_columns(assignments, FIELDS)
