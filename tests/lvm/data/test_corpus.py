"""A corpus reads each source once and cuts each document once; what cannot be used is left out and listed, or refused."""

import gzip

import pytest

from lvm.config import ChunkerConfig
from lvm.data.chunker import Chunker
from lvm.data.corpus import read_corpus
from lvm.data.sources import Excluded, Reading, Skipped
from lvm.errors import InputError
from tests.support.corpora import Counted, write_lines

ONE = "The treasury is full."
TWO = "Commerce grows in every port. The harvest was good."
GOING = Reading(keep_going=True)


@pytest.fixture(scope="module")
def chunker(encoder) -> Chunker:
    return Chunker(ChunkerConfig(), encoder.tokenizer)


@pytest.fixture()
def kept(chunker, tmp_path):
    """The documents that are kept of some sources, and the digest."""

    def found(sources: list[str], max_docs: int | None = None) -> tuple[dict[str, str], str]:
        with read_corpus(sources, chunker, tmp_path, max_docs) as corpus:
            return corpus.kept, corpus.digest()

    return found


def test_every_use_of_a_corpus_takes_one_reading_and_one_cut_of_each_document(monkeypatch, chunker, tmp_path):
    counted = Counted(monkeypatch)
    first = write_lines(tmp_path / "a.jsonl", [{"doc_id": "x", "text": TWO}, {"doc_id": "copy", "text": TWO}])
    second = write_lines(tmp_path / "b.jsonl", [{"doc_id": "y", "text": ONE}])
    with read_corpus([first, second], chunker, tmp_path) as corpus:
        some = [document.doc_id for document in corpus.only(["y"]).chunked()]
        everything = [(document.doc_id, document.source, [c.text for c in document.chunks]) for document in corpus.chunked()]
        again = [[c.text for c in document.chunks] for document in corpus.chunked()]
    assert some == ["y"]
    assert everything == [("x", "a", ["Commerce grows in every port.", "The harvest was good."]), ("y", "b", [ONE])]
    assert again == [texts for _, _, texts in everything]
    assert counted.reads == {first: 1, second: 1}
    assert counted.cuts == {TWO: 1, ONE: 1}


def test_sample_is_the_same_whatever_the_order_and_grows_by_adding(kept, tmp_path):
    ids = [f"document {i}" for i in range(60)]
    rows = [{"doc_id": doc_id, "text": f"{doc_id}. {TWO}"} for doc_id in ids]
    forwards, backwards = write_lines(tmp_path / "a.jsonl", rows), write_lines(tmp_path / "b.jsonl", rows[::-1])
    sample, digest = kept([forwards], 20)
    assert (sample, digest) == kept([backwards], 20) and len(sample) == 20
    assert digest != kept([forwards])[1]
    assert sample.items() < kept([forwards], 30)[0].items()
    assert not set(sample) <= set(ids[:30]), "a sample, not the beginning"
    assert len(kept([forwards], 1000)[0]) == 60


def test_identity_of_a_corpus_includes_its_line_breaks(kept, tmp_path):
    one = write_lines(tmp_path / "a.jsonl", [{"doc_id": "x", "text": "A title\nThe first sentence goes on. Another."}])
    two = write_lines(tmp_path / "b.jsonl", [{"doc_id": "x", "text": "A title The first sentence goes on. Another."}])
    assert kept([one])[1] != kept([two])[1]


def test_unusable_documents_are_left_out_and_listed_with_the_reason(chunker, tmp_path):
    records = [
        {"doc_id": "good", "text": TWO, "year": 1900},
        {"doc_id": "hollow", "text": ""},
        {"doc_id": "blank", "text": " \n\t "},
        {"doc_id": "copy", "text": TWO.replace(" ", " \n ")},
        {"doc_id": "good", "text": TWO},
    ]
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "short.txt").write_text(ONE)
    (folder / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with read_corpus([write_lines(tmp_path / "a.jsonl", records), str(folder)], chunker, tmp_path, None, GOING) as corpus:
        assert set(corpus.kept) == {"good", "short.txt"}
        assert corpus.ignored_fields == ["year"]
        assert corpus.skipped == [
            Skipped("hollow", "empty"),
            Skipped("blank", "empty"),
            Skipped("copy", "duplicate: of good"),
            Skipped("good", "duplicate: of good"),
            Skipped("bad.txt", "broken UTF-16: at byte 2"),
        ]


@pytest.mark.parametrize(
    "records",
    [
        [("x", TWO), ("x", ONE)],
        [("y", TWO), ("x", TWO), ("x", ONE)],
        [("x", ""), ("x", TWO)],
        [("x", TWO), ("x", " ")],
    ],
    ids=["two texts", "first is a copy of another", "first is empty", "second is empty"],
)
def test_one_name_for_two_texts_is_refused(kept, records, tmp_path):
    spec = write_lines(tmp_path / "a.jsonl", [{"doc_id": d, "text": t} for d, t in records])
    with pytest.raises(InputError, match="'x' stands for two different texts"):
        kept([spec])


@pytest.mark.parametrize("texts", [[], ["", " "]], ids=["no rows", "empty"])
def test_sources_without_a_usable_document_are_refused_with_the_number_skipped(kept, texts, tmp_path):
    spec = write_lines(tmp_path / "a.jsonl", [{"doc_id": str(i), "text": t} for i, t in enumerate(texts)])
    reasons = r" \(empty 2; the first: 0, empty\)" if texts else "$"
    with pytest.raises(InputError, match=f"no usable document in {spec}: {len(texts)} skipped{reasons}"):
        kept([spec])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"doc_id": "x", "text": "caf\xe9"}', "line 1: broken UTF-8"),
        ("a.jsonl", b'{"doc_id": "x", "text":', "line 1: not JSON"),
        ("a.jsonl", b'{"doc_id": "x"}', "'text' is missing"),
        ("a.jsonl.gz", gzip.compress(b'{"doc_id": "x", "text": "' + TWO.encode() + b'"}\n', mtime=0)[:-9], "truncated"),
        ("a.parquet", b"PAR1 and no footer", "not a readable Parquet file"),
        ("a.docx", b"PK", "is of an unknown kind: expected builtin:sotu, a folder, "),
    ],
)
def test_malformed_source_after_a_good_one_is_refused(kept, name, content, reason, tmp_path):
    good = write_lines(tmp_path / "good.jsonl", [{"doc_id": "x", "text": TWO}])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        kept([good, str(tmp_path / name)])


def test_no_source_at_all_is_refused(kept):
    with pytest.raises(InputError, match="--source"):
        kept([])


@pytest.mark.parametrize("max_docs", [0, -1])
def test_number_of_documents_below_one_is_refused(kept, max_docs, tmp_path):
    spec = write_lines(tmp_path / "a.jsonl", [{"doc_id": "x", "text": TWO}])
    with pytest.raises(InputError, match=f"field 'max_docs' is {max_docs}: give 1 or more"):
        kept([spec], max_docs)


def test_more_than_half_left_out_is_refused_with_the_reasons_unless_told_to_go_on(chunker, kept, tmp_path):
    rows = [{"doc_id": "x", "text": TWO}, {"doc_id": "y", "text": ""}]
    assert len(kept([write_lines(tmp_path / "half.jsonl", rows)])[0]) == 1
    spec = write_lines(tmp_path / "more.jsonl", [*rows, {"doc_id": "z", "text": TWO}])
    with pytest.raises(InputError, match=r"67% of the input is left out \(empty 1, duplicate 1\), more than half: .* --keep-going"):
        kept([spec])
    with read_corpus([spec], chunker, tmp_path, None, GOING) as corpus:
        assert list(corpus.kept) == ["x"]


def test_what_tools_made_is_listed_but_is_no_loss(chunker, tmp_path):
    for name in ("docs/a.txt", "docs/.git/x", "docs/.b.txt", "docs/node_modules/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ONE)
    with read_corpus([str(tmp_path / "docs")], chunker, tmp_path) as corpus:
        assert [type(item) for item in corpus.skipped] == [Excluded] * 3


def test_losses_when_cutting_count_beside_losses_when_reading(chunker, tmp_path):
    rows = [{"doc_id": str(i), "text": f"{i}. {TWO}"} for i in range(6)] + [{"doc_id": "e", "text": ""}, {"doc_id": "f", "text": ""}]
    with read_corpus([write_lines(tmp_path / "a.jsonl", rows)], chunker, tmp_path) as corpus:
        corpus.require_half([Skipped("0", "one chunk"), Skipped("1", "one chunk")])
        with pytest.raises(InputError, match=r"62% .*\(one chunk 3, empty 2\)"):
            corpus.require_half([Skipped(str(i), "one chunk") for i in range(3)])
        corpus.only(["0", "1", "2", "3"]).require_half([Skipped("0", "one chunk")])
        with pytest.raises(InputError, match="62%"):
            corpus.only(["0", "1"]).require_half([Skipped("0", "one chunk")])


def test_one_id_in_several_sources_is_told_apart_by_the_source(kept, tmp_path):
    for number, folder in enumerate(("a", "b", "c/b")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "README.md").write_text(f"Text {number}.")
        (tmp_path / folder / "same.md").write_text("The same text.")
    sources = [str(tmp_path / folder) for folder in ("a", "b", "c/b")]
    assert list(kept(sources[:1])[0]) == ["README.md", "same.md"]
    assert list(kept(sources[:2])[0]) == ["README.md", "same.md", "b/README.md"]
    assert list(kept(sources)[0]) == ["README.md", "same.md", "b/README.md", "c/b/README.md"]
