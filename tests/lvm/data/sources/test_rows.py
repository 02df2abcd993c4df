"""What a row has to say, which column says it, and what is refused, skipped and ignored."""

import pytest

from lvm.data.sources import Document, IgnoredField, iter_source
from tests.support.reading import ROWS, documents, json_lines, left_out, refusal, write_parquet

WRITE = {
    "a.jsonl": lambda file, rows: file.write_bytes(json_lines(rows)),
    "a.parquet": write_parquet,
}


@pytest.fixture(params=WRITE)
def rows(request, tmp_path):
    """Writes rows as a file, returns the source."""

    def write(rows) -> str:
        WRITE[request.param](tmp_path / request.param, rows)
        return str(tmp_path / request.param)

    return write


def test_columns_of_other_names_are_mapped(rows):
    spec = rows([{"id": "x", "content": "Sound text.", "site": "web"}])
    assert documents(spec, columns={"doc_id": "id", "text": "content", "source": "site"}) == [Document("x", "web", "Sound text.")]


def test_missing_field_is_refused_with_those_that_are_there_and_the_remedy(rows):
    message = refusal(rows([{"id": "x", "content": "Sound text."}]))
    assert "1: field 'doc_id' is missing; there are 'content', 'id': --column doc_id=NAME maps one of them" in message
    message = refusal(rows([{"id": "x", "content": "Sound text."}]), columns={"doc_id": "id"})
    assert "field 'text' is missing; there are 'content', 'id'" in message


def test_integers_are_ids_and_sources(rows):
    assert documents(rows([{"doc_id": 7, "text": "Sound text.", "source": 3}])) == [Document("7", "3", "Sound text.")]


def test_rows_without_an_id_are_numbered_on_request(rows):
    found = documents(rows([{"text": "One text."}, {"text": "Another."}]), columns={"doc_id": "#"})
    assert [document.doc_id.split("#")[1] for document in found] == ["1", "2"]


def test_null_text_and_null_id_are_skipped_with_the_place(rows):
    spec = rows([*ROWS, {"doc_id": "third", "text": None}, {"doc_id": None, "text": "Sound text."}])
    assert [(name.rsplit(", ")[-1].split(" ")[-1], reason.split(":")[0]) for name, reason in left_out(spec)] == [
        ("third", "no text (null)"),
        ("4", "no doc_id (null)"),
    ]
    assert len(documents(spec)) == 2


def test_source_that_is_an_object_is_refused_in_one_sentence(rows):
    message = refusal(rows([{"doc_id": "x", "text": "Sound text.", "source": {"name": "web"}}]))
    assert message.endswith("1: field 'source' is an object: expected text or an integer; --column source=NAME takes another field")


def test_text_that_is_a_list_is_refused_naming_the_option(rows):
    assert "field 'text' is a list: expected text (is the text cut already? then give --chunked)" in refusal(
        rows([{"doc_id": "x", "text": ["One.", "Two."]}])
    )


@pytest.mark.parametrize(("value", "kind"), [(1.5, "a number with decimals"), (True, "true or false"), (["a"], "a list")])
def test_other_values_are_no_ids(rows, value, kind):
    assert f"field 'doc_id' is {kind}: expected text or an integer" in refusal(rows([{"doc_id": value, "text": "Sound text."}]))


def test_unknown_field_is_named_once_for_each_source(rows):
    spec = rows([row | {"year": 1900, "url": "-"} for row in ROWS])
    ignored = [item.name for item in iter_source(spec) if isinstance(item, IgnoredField)]
    assert sorted(ignored) == ["url", "year"]
    assert len(documents(spec)) == 2
