"""Text that is cut already keeps its chunks, in order, whatever the order of the rows."""

import pytest

from lvm.config import ChunkerConfig
from lvm.data.chunker import Chunker
from lvm.data.corpus import read_corpus
from lvm.data.sources import Reading
from lvm.errors import InputError
from tests.support.corpora import write_lines
from tests.support.reading import left_out, refusal, write_parquet

PIECES = ["One chunk. It has two sentences.", "lower case goes on", "Chapter 3"]


@pytest.fixture()
def read(encoder, tmp_path):
    """The chunks of each document, and the digest of the corpus."""

    def found(spec: str, **columns: str):
        chunker = Chunker(ChunkerConfig(max_tokens=16), encoder.tokenizer)
        with read_corpus([spec], chunker, tmp_path, None, Reading(columns, chunked=True)) as corpus:
            return {one.doc_id: [chunk.text for chunk in one.chunks] for one in corpus.chunked()}, corpus.digest()

    return found


def rows(doc_id: str = "x"):
    return [{"doc_id": doc_id, "chunk_index": 10 * i, "text": text} for i, text in enumerate(PIECES)]


def test_rows_of_a_document_are_joined_in_the_order_of_their_index(read, tmp_path):
    mixed = [row for pair in zip(rows("x")[::-1], rows("y")[1:] + rows("y")[:1], strict=True) for row in pair]
    for row in mixed:
        row["text"] = f"{row['text']} {row['doc_id']}"
    found, _ = read(write_lines(tmp_path / "a.jsonl", mixed))
    assert found == {doc_id: [f"{text} {doc_id}" for text in PIECES] for doc_id in ("x", "y")}


def test_list_a_row_is_a_document(read, tmp_path):
    expected = read(write_lines(tmp_path / "a.jsonl", rows()))
    assert expected[0] == {"x": PIECES}
    assert read(write_lines(tmp_path / "b.jsonl", [{"doc_id": "x", "text": PIECES}])) == expected
    assert read(write_parquet(tmp_path / "b.parquet", [{"doc_id": "x", "text": [*PIECES, None, " "]}]))[0] == expected[0]


def test_another_column_or_the_rows_give_the_order(read, tmp_path):
    numbered = [{"doc_id": "x", "n": 3 - i, "text": text} for i, text in enumerate(PIECES)]
    spec = write_lines(tmp_path / "a.jsonl", numbered)
    assert read(spec, chunk_index="n")[0] == {"x": PIECES[::-1]}
    assert read(spec, chunk_index="#")[0] == {"x": PIECES}
    assert "field 'chunk_index' is missing; there are 'doc_id', 'n', 'text': --column chunk_index=NAME" in refusal(spec, chunked=True)


def test_identity_of_a_corpus_includes_where_it_was_cut(read, tmp_path):
    one = write_lines(tmp_path / "a.jsonl", [{"doc_id": "x", "text": ["A\nB"]}])
    two = write_lines(tmp_path / "b.jsonl", [{"doc_id": "x", "text": ["A", "B"]}])
    assert read(one)[1] != read(two)[1]


def test_chunk_over_the_budget_is_cut(read, tmp_path):
    (pieces,) = read(write_lines(tmp_path / "a.jsonl", [{"doc_id": "x", "text": ["word " * 40, "end"]}]))[0].values()
    assert " ".join(pieces) == "word " * 40 + "end" and len(pieces) > 2


@pytest.mark.parametrize("index", ["0", 1.0, True, None])
def test_index_that_is_no_integer_is_refused(tmp_path, index):
    spec = write_lines(tmp_path / "a.jsonl", [{"doc_id": "x", "chunk_index": index, "text": "One."}])
    assert "field 'chunk_index' is" in refusal(spec, chunked=True)


def test_two_chunks_of_one_index_are_refused_naming_the_document(read, tmp_path):
    with pytest.raises(InputError, match="doc_id 'x': two chunks have the index 0"):
        read(write_lines(tmp_path / "a.jsonl", [*rows(), rows()[0]]))


def test_whole_documents_beside_tables_of_chunks_are_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("Whole text.")
    write_lines(tmp_path / "b.jsonl", rows())
    assert left_out(tmp_path, chunked=True) == [("a.txt", "not cut already: --chunked reads tables")]
