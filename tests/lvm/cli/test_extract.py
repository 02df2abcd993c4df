"""`lvm extract`: its JSON object, and input that it refuses in one sentence and without leaving anything."""

import pytest

from lvm.data.manifest import read_manifest
from tests.support.commands import ABSENT_DEVICE, copy_of, lvm, refusal, tree
from tests.support.corpora import write_lines


def test_extract_json_counts_documents_chunks_skips_and_ignored_fields(unnormalised):
    finished, out = unnormalised
    found = finished.json
    assert finished.code == 0
    assert (found["path"], found["digest"], found["reused"]) == (str(out), read_manifest(out).digest, False)
    assert sum(found["documents"].values()) == 4
    assert sum(found["chunks"].values()) == found["encoded_chunks"] > 4
    assert found["skipped"] == [{"doc_id": "short", "reason": "one chunk: nothing to predict"}]
    assert found["ignored_fields"] == ["year"]


def test_extract_again_has_nothing_to_do_and_says_so(dataset, small_corpus, tmp_path):
    mine = copy_of(dataset, tmp_path / "data")  # other tests write derived files beside the shared one
    before = tree(mine)
    found = lvm("extract", "--source", small_corpus, "--out", mine, "--json").json
    assert (found["reused"], found["encoded_chunks"]) == (True, 0)
    assert tree(mine) == before


def test_extract_reuse_encodes_what_is_new_and_says_how_much_it_reused(dataset, small_corpus, tmp_path):
    more = write_lines(tmp_path / "more.jsonl", [{"doc_id": "new", "text": "Night fell over the harbour.\n\nThe lamps were lit."}])
    out = tmp_path / "out"
    finished = lvm("extract", "--source", small_corpus, "--source", more, "--out", out, "--reuse", dataset.path)
    assert f"Encoded 2 chunks, reused {dataset.n_rows:,} of {dataset.manifest.digest[:12]}." in " ".join(finished.out.split())
    assert read_manifest(out).reused == {dataset.manifest.digest: dataset.n_rows}
    found = lvm("extract", "--source", small_corpus, "--out", tmp_path / "again", "--reuse", out, "--reuse", dataset.path, "--json").json
    assert (found["encoded_chunks"], found["reused_chunks"], found["reused_from"]) == (0, dataset.n_rows, [read_manifest(out).digest])
    assert found["changed_splits"] == []


def test_dataset_to_reuse_that_is_none_is_refused_and_leaves_nothing(unnormalised, five_documents, untouched, tmp_path):
    for path, says in ((unnormalised[1], "normalize: False against True"), (tmp_path / "none", "is not a folder")):
        assert says in refusal(lvm("extract", "--source", five_documents, "--out", untouched, "--reuse", path))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--source", "no/such/folder"), "source 'no/such/folder' does not exist"),
        (("--source", "builtin:news"), "source 'builtin:news' does not exist: give builtin:sotu, a folder, "),
        (("--source", "builtin:sotu", "--encoder", "word2vec"), "encoder 'word2vec' is not known: there are minilm, gtr-t5-base, "),
        (
            ("--source", "builtin:sotu", "--device", ABSENT_DEVICE),
            f"device '{ABSENT_DEVICE if ':' in ABSENT_DEVICE else 'cuda:0'}' is not on this machine",
        ),
        (("--source", "builtin:sotu", "--dtype", "int8"), "field 'dtype'"),
        (("--source", "builtin:sotu", "--set", "chunker.max_tokens=4"), "field 'chunker.max_tokens'"),
        (("--source", "builtin:sotu", "--set", "chunker.max_tokens=400"), "set chunker.max_tokens=254 or less"),
        (("--source", "builtin:sotu", "--set", "chunker.language=English"), "field 'chunker.language'"),
        (("--source", "builtin:sotu", "--set", "epochs=4"), "this command reads the settings of chunker, splits"),
    ],
)
def test_extract_refuses_in_one_sentence_and_leaves_nothing(arguments, says, untouched):
    assert says in refusal(lvm("extract", "--out", untouched, *arguments))


def test_out_that_holds_another_dataset_is_refused_and_kept(unnormalised, five_documents):
    before = tree(unnormalised[1])
    assert "holds another dataset" in refusal(lvm("extract", "--source", five_documents, "--out", unnormalised[1]))
    assert tree(unnormalised[1]) == before


def test_out_below_a_file_is_refused(five_documents, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    assert str(file) in refusal(lvm("extract", "--source", five_documents, "--out", file / "data"))
    assert file.read_text() == "mine"
