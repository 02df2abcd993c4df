import gzip
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import SOURCES
from lvm.data.sources import Document, IgnoredField, Skipped, iter_source, markdown_text, source_kinds
from lvm.errors import InputError

ROWS = [
    {"doc_id": "first", "text": "The harvest was good. The roads were dry."},
    {"doc_id": "second", "text": "Rivers rise in spring.\nThey fall in autumn.", "source": "almanac"},
]
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


def write_lines(path: Path, rows) -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def write_parquet(path: Path, rows) -> str:
    columns = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), path)
    return str(path)


def documents(spec: str) -> list[Document]:
    return [item for item in iter_source(spec) if isinstance(item, Document)]


def refusal(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        list(iter_source(spec))
    return str(caught.value)


def test_built_in_corpus_has_every_address_once_in_order_of_years():
    found = documents("builtin:sotu")
    ids = [document.doc_id for document in found]
    assert len(found) == 249
    assert ids == sorted(set(ids))
    assert {document.source for document in found} == {"sotu"}
    assert all(document.text.strip() for document in found)


@pytest.mark.parametrize("spec", ["builtin:news", "builtin:", "no/such.jsonl", "no/such.parquet", "no/such/folder"])
def test_source_that_does_not_exist_is_refused_naming_the_kinds(spec):
    assert f"source '{spec}' does not exist: give builtin:sotu, a folder, a .jsonl or .jsonl.gz file, a .parquet file" in refusal(spec)


def test_file_of_unknown_kind_is_refused_naming_the_known_ones(tmp_path):
    (tmp_path / "table.csv").write_text("doc_id,text\n")
    assert f"table.csv' is of an unknown kind: expected {source_kinds()}" in refusal(str(tmp_path / "table.csv"))


def test_kind_that_is_registered_from_outside_is_read_and_named(forgetting):
    forgetting(SOURCES)

    @SOURCES.register("poems", takes="author")
    @SOURCES.register("poem")
    def poems(spec: str):
        yield Document(spec, "poems", "Roses are red.")

    for spec in ("poem", "poems:burns"):
        assert documents(spec) == [Document(spec, "poems", "Roses are red.")]
    assert source_kinds().endswith(", a .parquet file, poem, poems:<author>")
    for spec in ("poem:burns", "poems", "builtin:sotu:1790"):
        assert "does not exist" in refusal(spec)


def test_folder_gives_text_and_markdown_under_their_relative_paths(tmp_path):
    root = tmp_path / "letters"
    (root / "deep").mkdir(parents=True)
    (root / "b.txt").write_text("Plain text.")
    (root / "deep" / "a.md").write_text("# Title\n\nA *short* paragraph.\n")
    (root / "picture.png").write_bytes(b"\x89PNG")
    assert documents(str(root)) == [
        Document("b.txt", "letters", "Plain text."),
        Document("deep/a.md", "letters", "Title\n\nA short paragraph."),
    ]


def test_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfPlain text.")
    assert documents(str(tmp_path))[0].text == "Plain text."


def test_file_of_broken_utf8_is_skipped_with_the_place_and_the_others_are_kept(tmp_path):
    (tmp_path / "a.txt").write_text("Sound text.")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9 au lait")
    assert [item for item in iter_source(str(tmp_path)) if isinstance(item, Skipped)] == [Skipped("b.txt", "broken UTF-8 at byte 3")]
    assert [document.doc_id for document in documents(str(tmp_path))] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname == "Darwin", reason="the file system refuses such names")
def test_file_whose_name_is_broken_utf8_is_skipped(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("Sound text under a bad name.")
    assert list(iter_source(str(tmp_path))) == [Skipped(r"'caf\udce9.txt'", "broken UTF-8 in the file's name")]


def test_folder_without_text_is_refused(tmp_path):
    assert "no .txt or .md" in refusal(str(tmp_path))


def test_markdown_keeps_prose_in_order_and_drops_code_blocks_and_marks():
    text = "# One\n\nTwo **three**\nfour [five](https://example.org).\n\n- six\n- seven\n\n```\ncode()\n```\n\n> eight\n"
    assert markdown_text(text) == "One\n\nTwo three four five.\n\nsix\n\nseven\n\neight"


def test_hard_line_break_in_markdown_keeps_its_words_apart():
    assert markdown_text("first line  \nsecond line\\\nthird") == "first line second line third"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(UNICODE, UNICODE), max_size=4), st.sampled_from([".jsonl", ".jsonl.gz"]))
def test_json_lines_give_back_any_text_unchanged(pairs, suffix):
    with tempfile.TemporaryDirectory() as folder:
        spec = write_lines(Path(folder) / f"mixed{suffix}", ({"doc_id": d, "text": t} for d, t in pairs))
        assert list(iter_source(spec)) == [Document(d, "mixed", t) for d, t in pairs]


@pytest.mark.parametrize("name", ["letters.jsonl", "letters.jsonl.gz", "letters.parquet"])
def test_table_like_sources_agree_on_documents_and_default_source(tmp_path, name):
    write = write_parquet if name.endswith("parquet") else write_lines
    spec = write(tmp_path / name, ROWS)
    assert documents(spec) == [Document("first", "letters", ROWS[0]["text"]), Document("second", "almanac", ROWS[1]["text"])]


def test_blank_lines_between_records_are_nothing(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("\n" + json.dumps(ROWS[0]) + "\n   \n\n" + json.dumps(ROWS[1]))
    assert len(documents(str(file))) == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_unknown_field_is_named_once_for_each_source(tmp_path, name):
    write = write_parquet if name.endswith("parquet") else write_lines
    spec = write(tmp_path / name, [row | {"year": 1900, "url": "-"} for row in ROWS])
    ignored = [item.name for item in iter_source(spec) if isinstance(item, IgnoredField)]
    assert sorted(ignored) == ["url", "year"]
    assert len(documents(spec)) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"doc_id": "x", "text": "cut o', "not JSON"),
        (b'{"doc_id": "x", "text": "caf\xe9"}', "broken UTF-8 at byte 28"),
        (b'{"doc_id": "x"}', "'text' is missing"),
        (b'{"text": "No name."}', "'doc_id' is missing"),
        (b'{"doc_id": 7, "text": "A number."}', "'doc_id' is missing or not a string"),
        (b'{"doc_id": "x", "text": null}', "'text' is missing or not a string"),
        (b'["x", "A list."]', "expected an object"),
        (b'{"doc_id": "x", "text": "half \\ud83d a pair"}', "'text' is not Unicode"),
        (b'{"doc_id": "\\udc00", "text": "Half a pair."}', "'doc_id' is not Unicode"),
    ],
)
def test_malformed_line_is_refused_by_file_line_and_field(tmp_path, line, reason):
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps(ROWS[0]).encode() + b"\n\n" + line + b"\n")
    message = refusal(str(file))
    assert f"{file}, line 3" in message and reason in message


def compressed(rows: int = 200) -> bytes:
    return gzip.compress("".join(json.dumps({"doc_id": f"d{i}", "text": f"Number {i * i}."}) + "\n" for i in range(rows)).encode())


@pytest.mark.parametrize(
    "content",
    [compressed()[:-300], compressed()[:-4], compressed()[:-6] + b"\0\0\0\0\0\0", b"plain text", compressed()[:400] + b"\xff" * 200],
    ids=["cut in the data", "cut in the trailer", "wrong length", "not gzip", "overwritten"],
)
def test_truncated_or_damaged_gz_is_refused_by_name(tmp_path, content):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(content)
    message = refusal(str(file))
    assert str(file) in message and "truncated, damaged or not gzip" in message


def test_truncated_parquet_source_is_refused_by_name(tmp_path):
    file = Path(write_parquet(tmp_path / "a.parquet", ROWS))
    file.write_bytes(file.read_bytes()[:-20])
    assert str(file) in refusal(str(file))


def test_damaged_page_of_a_parquet_source_is_refused_by_name(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), file, compression="zstd", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    assert str(file) in refusal(str(file))


def test_broken_utf8_in_a_parquet_source_is_refused_by_name(tmp_path):
    broken = pa.StringArray.from_buffers(1, *pa.array([b"caf\xe9"]).buffers()[1:])
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"doc_id": ["x"], "text": broken}), file)
    assert str(file) in refusal(str(file))


def test_parquet_row_without_text_is_refused_by_its_number_in_the_file(tmp_path):
    rows = [{"doc_id": f"d{i}", "text": "Sound." if i != 299 else None} for i in range(400)]
    assert "row 300: field 'text' is missing" in refusal(write_parquet(tmp_path / "a.parquet", rows))


def test_parquet_source_without_the_column_is_refused(tmp_path):
    assert "field 'text' is missing" in refusal(write_parquet(tmp_path / "a.parquet", [{"doc_id": "x", "body": "Sound."}]))
