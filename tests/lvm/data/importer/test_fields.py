"""Columns are found by their field's name, by an alias, or as they were given; never by a guess."""

import pyarrow as pa
import pytest

from lvm.data.importer.fields import ALIASES, column_names, column_of, resolve_columns
from lvm.errors import InputError


@pytest.mark.parametrize(("field", "alias"), [(field, alias) for field, aliases in ALIASES.items() for alias in aliases])
def test_every_alias_is_found(field, alias):
    names = [alias, *({"embedding", "doc_id"} - {field})]
    assert resolve_columns("t", names, {})[field] == alias


def test_no_alias_stands_for_two_fields():
    names = [name for field, aliases in ALIASES.items() for name in (field, *aliases)]
    assert len(names) == len(set(names))


def test_a_field_s_own_name_comes_before_aliases_and_a_given_column_before_both():
    names = ["embedding", "vector", "doc_id", "ref_doc_id", "content"]
    assert resolve_columns("t", names, {}) == {"embedding": "embedding", "doc_id": "doc_id", "text": "content"}
    given = resolve_columns("t", names, {"doc_id": "ref_doc_id"})
    assert given["doc_id"] == "ref_doc_id"


def test_a_column_that_was_given_to_one_field_is_not_found_for_another():
    assert resolve_columns("t", ["vector", "docid", "document"], {"doc_id": "docid", "text": "document"})["text"] == "document"


@pytest.mark.parametrize(
    ("names", "given", "sentence"),
    [
        (
            ["vector", "docid", "ref_doc_id"],
            {},
            "columns 'docid' and 'ref_doc_id' may each be the doc_id: say which by --column",
        ),
        (["vector", "id"], {}, "there is no column 'doc_id' or document_id .*; there are vector, id: name one by --column doc_id=COLUMN"),
        (["doc_id", "text"], {}, "there is no column 'embedding' or vector"),
        (["vector", "doc_id"], {"text": "body"}, "--column text=body: there is no column 'body'; there are vector, doc_id"),
    ],
)
def test_a_doubtful_or_missing_column_is_one_sentence(names, given, sentence):
    with pytest.raises(InputError, match=f"^place: {sentence}"):
        resolve_columns("place", names, given)


def test_fields_of_struct_columns_have_dotted_names():
    batch = pa.RecordBatch.from_pylist([{"metadata": {"doc": {"id": "a"}, "page": 1}}, {"metadata": None}])
    assert column_names(batch.schema) == ["metadata", "metadata.doc", "metadata.doc.id", "metadata.page"]
    assert column_of(batch, "metadata.doc.id").to_pylist() == ["a", None]
