"""Which sources there are, and what of a folder is read, left out and said."""

import os
from pathlib import Path

import pytest

from lvm.config import SOURCES
from lvm.data.sources import Document, Excluded, iter_source, source_kinds
from tests.support.reading import ROWS, documents, json_lines, left_out, refusal, write_parquet


def test_built_in_corpus_has_every_address_once_in_order_of_years():
    found = documents("builtin:sotu")
    ids = [document.doc_id for document in found]
    assert len(found) == 249
    assert ids == sorted(set(ids))
    assert {document.source for document in found} == {"sotu"}
    assert all(document.text.strip() for document in found)


@pytest.mark.parametrize("spec", ["builtin:news", "builtin:", "no/such.jsonl", "no/such.parquet", "no/such/folder", "x" * 5000, "a\0b"])
def test_source_that_does_not_exist_is_refused_naming_the_kinds(spec):
    assert f"source {spec!r} does not exist: give builtin:sotu, a folder, a file (.txt .text .md" in refusal(spec)


def test_file_of_unknown_kind_is_refused_naming_the_known_ones(tmp_path):
    (tmp_path / "table.xlsx").write_text("doc_id,text\n")
    assert f"table.xlsx' is of an unknown kind: expected {source_kinds()}" in refusal(tmp_path / "table.xlsx")


def test_kind_that_is_registered_from_outside_is_read_and_named(forgetting):
    forgetting(SOURCES)

    @SOURCES.register("poems", takes="author")
    @SOURCES.register("poem")
    def poems(spec: str):
        yield Document(spec, "poems", "Roses are red.")

    for spec in ("poem", "poems:burns"):
        assert documents(spec) == [Document(spec, "poems", "Roses are red.")]
    assert source_kinds().endswith(", poem, poems:<author>")
    for spec in ("poem:burns", "poems", "builtin:sotu:1790"):
        assert "does not exist" in refusal(spec)
    assert "leave out --chunked" in refusal("poem", chunked=True)


def test_folder_gives_one_document_a_file_under_its_relative_path_whatever_the_case_of_the_suffix(tmp_path):
    root = tmp_path / "letters"
    (root / "deep").mkdir(parents=True)
    (root / "B.TXT").write_text("Plain text.")
    (root / "deep" / "a.Md").write_text("# Title\n\nA *short* paragraph.\n")
    (root / "e.text").write_text("More text.")
    (root / "h.html").write_text("<p>Marked text.")
    (root / "i.rst").write_text("Structured *text*.")
    (root / "j.markdown").write_text("> Quoted text.")
    assert documents(root) == [
        Document("B.TXT", "letters", "Plain text."),
        Document("deep/a.Md", "letters", "Title\n\nA short paragraph."),
        Document("e.text", "letters", "More text."),
        Document("h.html", "letters", "Marked text."),
        Document("i.rst", "letters", "Structured text."),
        Document("j.markdown", "letters", "Quoted text."),
    ]


def test_folder_of_tables_is_read_under_its_own_name_and_its_readme_is_no_document(tmp_path):
    root = tmp_path / "corpus"
    (root / "more").mkdir(parents=True)
    write_parquet(root / "part-0.parquet", ROWS[:1])
    (root / "more" / "part-1.jsonl").write_bytes(json_lines([{"doc_id": "third", "text": "One. Two."}]))
    (root / "README.md").write_text("# The corpus\n\nThis is a dataset card.")
    assert documents(root) == [Document("third", "corpus", "One. Two."), Document("first", "corpus", ROWS[0]["text"])]
    assert left_out(root) == [("README.md", "describes the data beside it")]


def test_readme_beside_other_prose_is_a_document(tmp_path):
    (tmp_path / "a.txt").write_text("Plain text.")
    (tmp_path / "README.md").write_text("Read me.")
    (tmp_path / "rows.jsonl").write_bytes(json_lines(ROWS))
    assert [document.doc_id for document in documents(tmp_path)] == ["README.md", "a.txt", "first", "second"]


def test_what_is_not_read_is_listed_and_what_tools_made_is_told_from_losses(tmp_path):
    for name in ("a.txt", "picture.PNG", "Makefile", ".hidden.txt", ".git/notes.txt", "node_modules/x/README.md", "deep/.cache/b.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Text.")
    (tmp_path / "package.json").write_text('{\n  "name": "x"\n}\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "prices.csv").write_text("name,price\nbread,2\n")
    found = {item.doc_id: item for item in iter_source(str(tmp_path)) if not isinstance(item, Document)}
    assert {name: item.reason.split(":")[0] for name, item in found.items()} == {
        "picture.PNG": "unknown kind of file",
        "Makefile": "unknown kind of file",
        "package.json": "no table of documents",
        "empty.jsonl": "no rows",
        "prices.csv": "no table of documents",
        ".hidden.txt": "hidden",
        ".git": "hidden",
        "node_modules": "made by a tool, not a document",
        "deep/.cache": "hidden",
    }
    assert "there are 'name', 'price'" in found["prices.csv"].reason
    assert {name for name, item in found.items() if isinstance(item, Excluded)} == {".hidden.txt", ".git", "node_modules", "deep/.cache"}
    assert [document.doc_id for document in documents(tmp_path)] == ["a.txt"]


def test_table_that_is_malformed_after_its_first_row_refuses_its_folder(tmp_path):
    (tmp_path / "a.txt").write_text("Sound text.")
    (tmp_path / "b.jsonl").write_bytes(json_lines(ROWS) + b"{")
    assert "b.jsonl, line 3: not JSON" in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links")
def test_links_are_followed_once_and_loops_end(tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    root.mkdir()
    away.mkdir()
    (away / "far.txt").write_text("Far text.")
    (away / "back").symlink_to(root)
    (root / "near.txt").write_text("Near text.")
    (root / "a-link.txt").symlink_to(root / "near.txt")
    (root / "loop").symlink_to(root)
    (root / "out").symlink_to(away)
    (root / "out-again").symlink_to(away)
    (root / "nowhere.txt").symlink_to(root / "gone.txt")
    assert [document.doc_id for document in documents(root)] == ["near.txt", "out/far.txt"]
    again = "link to what is read already"
    assert left_out(root) == [
        ("a-link.txt", again),
        ("loop", again),
        ("nowhere.txt", "link that leads nowhere"),
        ("out/back", again),
        ("out-again", again),
    ]


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname == "Darwin", reason="the file system refuses such names")
def test_file_whose_name_is_broken_utf8_is_skipped(tmp_path):
    (tmp_path / "a.txt").write_text("Sound text.")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("Sound text under a bad name.")
    assert left_out(tmp_path) == [(r"'caf\udce9.txt'", "broken UTF-8 in the file's name")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipe_in_a_folder_is_left_out_and_not_waited_for(tmp_path):
    (tmp_path / "a.txt").write_text("Sound text.")
    os.mkfifo(tmp_path / "b.txt")
    assert left_out(tmp_path) == [("b.txt", "no file: a device, socket or pipe")]


def test_folder_without_text_is_refused_with_the_suffixes_that_are_read(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert "contains no file that can be read: .txt .text .md" in refusal(tmp_path)


# URIs


def test_uri_of_a_folder_or_a_file_is_read_as_the_path_is(tmp_path):
    (tmp_path / "a.txt").write_text("Sound text.")
    write_parquet(tmp_path / "b.parquet", ROWS)
    assert documents(tmp_path.as_uri()) == documents(tmp_path)
    assert documents((tmp_path / "b.parquet").as_uri()) == documents(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("file:///no/such/folder", "'file:///no/such/folder' does not exist"),
        ("gopher://host/folder", "'gopher://host/folder' cannot be reached"),
        ("s3://key:secret@/", "'s3://***@/' cannot be reached"),
    ],
)
def test_uri_that_leads_nowhere_is_refused_without_showing_a_secret(spec, says):
    message = refusal(spec)
    assert says in message and "secret" not in message
