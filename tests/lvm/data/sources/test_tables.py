"""JSON, CSV and Parquet give the same documents; what is malformed is refused by file, line and field."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.data.sources import Document, iter_source
from tests.support.reading import ROWS, documents, json_lines, left_out, refusal, write_parquet

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
FULL = [{"source": "letters"} | row for row in ROWS]


def as_csv(rows, delimiter: str = ",") -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["doc_id", "text", "source"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("letters.jsonl", json_lines(ROWS)),
        ("letters.ndjson", json_lines(ROWS).replace(b"\n", b"\r\n")),
        ("letters.json", json.dumps(ROWS, indent=1).encode()),
        ("letters.jsonl", b"\n " + json.dumps(ROWS).encode()),
        ("letters.json", json_lines(ROWS)),
        ("letters.csv", as_csv(ROWS).encode()),
        ("letters.csv", as_csv(ROWS, ";").encode("utf-8-sig")),
        ("letters.tsv", as_csv(ROWS, "\t").encode()),
    ],
)
def test_table_like_sources_agree_on_documents_and_default_source(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert documents(tmp_path / name) == [Document("first", "letters", ROWS[0]["text"]), Document("second", "almanac", ROWS[1]["text"])]


def test_parquet_agrees_too_whatever_its_types_and_row_groups(tmp_path):
    expected = [Document("first", "letters", ROWS[0]["text"]), Document("second", "almanac", ROWS[1]["text"])]
    assert documents(write_parquet(tmp_path / "letters.parquet", ROWS, row_group_size=1)) == expected
    table = pa.Table.from_pylist(FULL)
    for types in (pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(table.cast(pa.schema([(name, types) for name in table.schema.names])), tmp_path / "letters.PQ")
        assert documents(tmp_path / "letters.PQ") == expected


def test_folder_of_hive_partitions_is_read_with_its_partitions_as_columns(tmp_path):
    rows = [{"doc_id": f"{language}{n}", "text": f"Text {n}.", "language": language} for language in ("en", "fr") for n in range(3)]
    ds.write_dataset(pa.Table.from_pylist(rows), tmp_path, format="parquet", partitioning=["language"], partitioning_flavor="hive")
    found = documents(tmp_path, columns={"source": "language"})
    assert [(document.doc_id, document.source) for document in found] == [(row["doc_id"], row["language"]) for row in rows]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(UNICODE, UNICODE), max_size=4), st.sampled_from(["mixed.jsonl", "mixed.json"]))
def test_json_gives_back_any_text_unchanged(pairs, name):
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"doc_id": d, "text": t} for d, t in pairs]
        file = Path(folder) / name
        file.write_bytes(json_lines(rows) if name.endswith("l") else json.dumps(rows).encode())
        assert list(iter_source(str(file))) == [Document(d, "mixed", t) for d, t in pairs]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(UNICODE, UNICODE), max_size=4))
def test_csv_gives_back_any_text_unchanged(pairs):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mixed.csv"
        file.write_bytes(as_csv({"doc_id": d, "text": t} for d, t in pairs).encode())
        assert list(iter_source(str(file))) == [Document(d, "mixed", t) for d, t in pairs]


def test_blank_lines_and_marks_of_joined_files_are_nothing(tmp_path):
    mark = b"\xef\xbb\xbf"
    file = tmp_path / "a.jsonl"
    file.write_bytes(mark + b"\n" + json_lines(ROWS[:1]) + b"   \n" + mark + json_lines(ROWS[1:]) + mark)
    assert len(documents(file)) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"doc_id": "x", "text": "cut o', "not JSON"),
        (b'{"doc_id": "x", "text": "caf\xe9"}', "broken UTF-8 at byte 28"),
        (b'{"doc_id": "x"}', "'text' is missing"),
        (b'{"text": "No name."}', "'doc_id' is missing"),
        (b'["x", "A list."]', "expected an object with 'doc_id' and 'text', not a list"),
        (b'{"doc_id": "x", "text": "half \\ud83d a pair"}', "'text' is not Unicode"),
        (b'{"doc_id": "\\udc00", "text": "Half a pair."}', "'doc_id' is not Unicode"),
        (b'{"doc_id": ' + b"1" * 5000 + b"}", "not JSON that can be read"),
        (b'{"doc_id": ' + b"[" * 5000, "not JSON"),
    ],
)
def test_malformed_line_is_refused_by_file_line_and_field(tmp_path, line, reason):
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps(ROWS[0]).encode() + b"\n\n" + line + b"\n")
    message = refusal(file)
    assert f"{file}, line 3" in message and reason in message


def test_malformed_item_of_an_array_is_refused_by_its_number(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([*ROWS, {"doc_id": "x"}]))
    assert "a.json, item 3: field 'text' is missing" in refusal(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(ROWS)[:-1])
    assert "a.json: not JSON" in refusal(tmp_path / "a.json")


def test_key_that_is_no_unicode_is_named_as_ascii(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"doc_id": "x", "text": "Sound.", "\\ud800": 1}')
    assert [item.name for item in iter_source(str(tmp_path / "a.jsonl")) if not isinstance(item, Document)] == [r"'\ud800'"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("doc_id,text\nx,one,two\n", "line 2: 3 fields, but the first line names 2"),
        ("doc_id,text\nx\n", "line 2: 1 fields, but the first line names 2"),
        ('doc_id,text\nx,"cut o', "not CSV (unexpected end of data)"),
        ("doc_id,text,text\nx,one,two\n", "column 'text' stands there twice"),
        ("name;body\nx;y\n", "field 'doc_id' is missing; there are 'body', 'name'"),
    ],
)
def test_malformed_csv_is_refused_by_line(tmp_path, content, reason):
    (tmp_path / "a.csv").write_text(content)
    assert reason in refusal(tmp_path / "a.csv")


def test_text_of_a_csv_may_be_long_and_ids_keep_their_zeros(tmp_path):
    (tmp_path / "a.csv").write_text(f"doc_id,text\n007,{'word ' * 100_000}\n")
    (document,) = documents(tmp_path / "a.csv")
    assert document.doc_id == "007" and len(document.text) == 500_000


def test_truncated_parquet_source_is_refused_by_name(tmp_path):
    file = Path(write_parquet(tmp_path / "a.parquet", ROWS))
    file.write_bytes(file.read_bytes()[:-20])
    assert str(file) in refusal(file)


def test_damaged_page_of_a_parquet_source_is_refused_by_name(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), file, compression="zstd", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    assert str(file) in refusal(file)


def test_broken_utf8_in_a_parquet_source_is_refused_by_name(tmp_path):
    broken = pa.StringArray.from_buffers(1, *pa.array([b"caf\xe9"]).buffers()[1:])
    for text in (broken, pa.array([b"caf\xe9"])):
        pq.write_table(pa.table({"doc_id": ["x"], "text": text}), tmp_path / "a.parquet")
        assert str(tmp_path / "a.parquet") in refusal(tmp_path / "a.parquet")


def test_parquet_row_without_text_is_skipped_by_its_number_in_the_file(tmp_path):
    rows = [{"doc_id": f"d{i}", "text": "Sound." if i != 299 else None} for i in range(400)]
    ((name, reason),) = left_out(write_parquet(tmp_path / "a.parquet", rows))
    assert (name, reason.rsplit(", ")[1]) == ("d299", "row 300")


def test_parquet_source_with_two_columns_of_one_name_is_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(["x"])] * 3, names=["doc_id", "text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet is not a readable Parquet file (truncated, broken UTF-8, a column twice?)" in refusal(tmp_path / "a.parquet")
