"""Targets and pool are fixed, the same for every model, and without chunks that train holds too."""

import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvm.config import EXCLUDED_BEFORE
from lvm.data import windows as module
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder
from lvm.data.extract import extract
from lvm.data.windows import (
    contexts,
    contexts_of_rows,
    leaked_rows,
    make_windows,
    near_copies,
    nearest_train_cosines,
    unit,
)
from lvm.errors import InputError
from tests.support.in_memory import in_memory

ALL = 10_000


@pytest.fixture(scope="module")
def poisoned(dataset: Dataset, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, list[str], str]:
    """A few short documents; one for testing holds two sentences of a training document, and a third in capitals.

    Returns the dataset, the two sentences and the third as planted.
    """
    chosen = [*dataset.docs("test")[:2], *dataset.docs("val")[:1], *dataset.docs("train")[:4]]
    texts = {dataset.doc_ids[d]: dataset.texts(np.arange(dataset.starts[d], dataset.starts[d] + 25)) for d in chosen}
    source, victim = dataset.doc_ids[chosen[3]], dataset.doc_ids[chosen[0]]
    plain = [t for t in texts[source] if re.fullmatch(r"[A-Z][a-z]+( [a-z]+,?){6,20}\.", t)]
    copied, shouted = plain[:2], plain[2].upper()
    texts[victim][5:5] = [copied[0]]
    texts[victim][20:20] = [copied[1], shouted]
    folder = tmp_path_factory.mktemp("poisoned")
    lines = [json.dumps({"doc_id": doc_id, "text": "\n".join(own)}) for doc_id, own in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    extract([str(folder / "corpus.jsonl")], folder / "out", encoder)
    made = open_dataset(folder / "out")
    assert made.doc_splits[made.doc_ids.index(victim)] == "test"
    assert made.doc_splits[made.doc_ids.index(source)] == "train"
    return made, copied, shouted


def test_the_pool_is_the_same_at_every_context_length(dataset: Dataset, cpu: torch.device) -> None:
    made = [make_windows(dataset, "val", length, 300, cpu) for length in (1, 4, 8, 20)]
    assert len({windows.pool_hash for windows in made}) == 1
    assert all(np.array_equal(windows.pool, made[0].pool) for windows in made)
    for shorter, longer in pairwise(made):
        assert set(longer.targets) < set(shorter.targets)


def test_another_split_or_size_is_another_pool(dataset: Dataset, cpu: torch.device) -> None:
    hashes = [make_windows(dataset, split, 4, size, cpu).pool_hash for split in ("train", "val", "test") for size in (200, ALL)]
    assert len(set(hashes)) == 6


def test_the_pool_has_the_size_asked_for_or_all_there_is(dataset: Dataset, cpu: torch.device) -> None:
    everything, some = make_windows(dataset, "val", 4, ALL, cpu), make_windows(dataset, "val", 4, 100, cpu)
    assert len(some.pool) == 100
    assert set(some.pool) < set(everything.pool)
    assert set(dataset.row_doc[some.pool]) == set(dataset.docs("val"))  # a sample of all documents, not of some
    clean = np.setdiff1d(dataset.rows("val"), leaked_rows(dataset, "val", cpu))
    assert len(everything.pool) == len(set(dataset.texts(clean)))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pool_texts_are_distinct_and_of_the_split(dataset: Dataset, cpu: torch.device, split: str) -> None:
    pool = make_windows(dataset, split, 4, ALL, cpu).pool
    texts = dataset.texts(pool)
    assert len(set(texts)) == len(texts)
    assert np.all(np.diff(pool) > 0)
    assert set(dataset.doc_splits[dataset.row_doc[pool]]) == {split}


@pytest.mark.parametrize("length", [1, 8])
def test_the_queries_are_all_pool_chunks_with_a_full_context(dataset: Dataset, cpu: torch.device, length: int) -> None:
    windows = make_windows(dataset, "val", length, 300, cpu)
    assert windows.targets.tolist() == [row for row in windows.pool if dataset.chunk_index[row] >= length]
    assert np.array_equal(windows.docs, dataset.row_doc[windows.targets])


def test_each_query_leaves_out_exactly_the_chunks_before_it_in_its_document(dataset: Dataset, cpu: torch.device) -> None:
    windows = make_windows(dataset, "val", 4, 500, cpu)
    pool_docs = dataset.row_doc[windows.pool]
    position = np.arange(len(windows.pool))
    for target, doc, (low, high) in zip(windows.targets, windows.docs, windows.excluded, strict=True):
        back = target - windows.pool
        expected = (pool_docs == doc) & (back >= 1) & (back <= EXCLUDED_BEFORE)
        assert np.array_equal((position >= low) & (position < high), expected)
    # The sample must hold both kinds: documents longer than the reach, and pool chunks beyond it.
    assert np.diff(windows.excluded, axis=1).max() > 10
    assert (dataset.chunk_index[windows.targets] > EXCLUDED_BEFORE).any()


def test_contexts_are_the_rows_before_each_target_in_its_document(dataset: Dataset, cpu: torch.device) -> None:
    windows = make_windows(dataset, "val", 5, 300, cpu)
    row_numbers = np.arange(dataset.n_rows, dtype=np.float32)[:, None]
    parts = list(contexts(row_numbers, windows.targets, 5, cpu, batch=64))
    assert [len(part) for part in parts[:-1]] == [64] * (len(parts) - 1)
    found = torch.cat(parts)[..., 0].numpy().astype(int)
    assert found.tolist() == [list(range(target - 5, target)) for target in windows.targets]
    assert np.all(dataset.row_doc[found] == windows.docs[:, None])


def test_contexts_hold_the_stored_vectors(dataset: Dataset, cpu: torch.device) -> None:
    targets = make_windows(dataset, "val", 3, 300, cpu).targets[:10]
    (found,) = contexts(dataset.vectors, targets, 3, cpu)
    assert found.dtype == torch.float32
    for context, target in zip(found.numpy(), targets, strict=True):
        np.testing.assert_array_equal(context, dataset.vectors[target - 3 : target])


def test_a_context_longer_than_every_document_is_refused_with_a_remedy(poisoned: tuple[Dataset, list[str], str], cpu: torch.device) -> None:
    with pytest.raises(InputError, match=r"'val'.*64 chunks.*smaller context_length"):
        make_windows(poisoned[0], "val", 64, ALL, cpu)


@pytest.mark.parametrize("length", [0, 65, 1000])
def test_a_context_that_the_pool_could_offer_as_a_wrong_answer_is_refused(dataset: Dataset, cpu: torch.device, length: int) -> None:
    with pytest.raises(InputError, match=rf"field 'context_length' is {length}: give 1 to 64"):
        make_windows(dataset, "val", length, ALL, cpu)


def test_no_chunk_of_the_longest_context_is_on_offer(dataset: Dataset, cpu: torch.device) -> None:
    windows = make_windows(dataset, "val", 64, ALL, cpu)
    for target, (low, high) in zip(windows.targets, windows.excluded, strict=True):
        offered = np.delete(windows.pool, np.arange(low, high))
        assert not np.isin(np.arange(target - 64, target), offered).any()


def test_chance_is_that_of_guessing_five_of_the_chunks_on_offer(dataset: Dataset, cpu: torch.device) -> None:
    windows = make_windows(dataset, "val", 4, 100, cpu)
    offered = [100 - (high - low) for low, high in windows.excluded]
    assert windows.chance_at_5 == pytest.approx(np.mean([5 / n for n in offered]))


def test_chance_is_certainty_when_fewer_than_five_chunks_are_on_offer(dataset: Dataset, cpu: torch.device) -> None:
    assert make_windows(dataset, "val", 4, 3, cpu).chance_at_5 == 1


def test_unit_scales_rows_and_keeps_directions(cpu: torch.device) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(unit(vectors, cpu).numpy(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)


# Leakage


def test_copied_and_nearly_copied_rows_are_found_and_no_others(poisoned: tuple[Dataset, list[str], str], cpu: torch.device) -> None:
    made, copied, shouted = poisoned
    train_texts = set(made.texts(made.rows("train")))
    train = unit(made.vectors[made.rows("train")], cpu).numpy()
    expected = []
    for row in made.rows("test"):
        vector = made.vectors[row] / np.linalg.norm(made.vectors[row])
        if made.texts([row])[0] in train_texts or max(float(vector @ other) for other in train) >= 0.995:
            expected.append(row)
    found = leaked_rows(made, "test", cpu)
    assert found.tolist() == expected
    assert {*copied, shouted} <= set(made.texts(found))
    assert shouted not in train_texts  # only its vector gives it away


def test_resemblance_is_no_leak(dataset: Dataset, cpu: torch.device) -> None:
    rows = dataset.rows("val")
    nearest = (unit(dataset.vectors[rows], cpu) @ unit(dataset.vectors[dataset.rows("train")], cpu).T).amax(1).numpy()
    assert ((nearest > 0.8) & (nearest < 0.99)).any() and (nearest > 0.996).any()
    assert leaked_rows(dataset, "val", cpu).tolist() == rows[nearest >= 0.995].tolist()


def test_leaked_rows_are_dropped_from_the_pool_and_counted(poisoned: tuple[Dataset, list[str], str], cpu: torch.device) -> None:
    made, copied, shouted = poisoned
    windows = make_windows(made, "test", 2, ALL, cpu)
    leaked = leaked_rows(made, "test", cpu)
    assert windows.dropped == len(leaked) >= 3
    assert not {*copied, shouted} & set(made.texts(windows.pool))
    assert set(windows.pool) == set(made.rows("test")) - set(leaked)


def test_leaked_rows_stay_readable_as_context(poisoned: tuple[Dataset, list[str], str], cpu: torch.device) -> None:
    made, _, _ = poisoned
    windows = make_windows(made, "test", 2, ALL, cpu)
    read = {int(row) for target in windows.targets for row in (target - 2, target - 1)}
    assert read & set(leaked_rows(made, "test", cpu).tolist())


def test_training_rows_do_not_leak_into_train_itself(poisoned: tuple[Dataset, list[str], str], cpu: torch.device) -> None:
    made, _, _ = poisoned
    assert len(leaked_rows(made, "train", cpu)) == 0
    assert make_windows(made, "train", 2, ALL, cpu).dropped == 0


def test_a_second_look_reads_the_same_rows_from_the_cache(poisoned: tuple[Dataset, list[str], str], cpu: torch.device) -> None:
    made, _, _ = poisoned
    first = leaked_rows(made, "test", cpu)
    (cached,) = (file for file in (made.path / "derived").iterdir() if file.name.endswith("leaked-test.npy"))
    written = cached.stat().st_mtime_ns
    assert np.array_equal(leaked_rows(made, "test", cpu), first)
    assert cached.stat().st_mtime_ns == written


# Against the definition, spelled out

REACH = 3
"""What the pool leaves out before a target, in the place of 64: documents can be short."""

TEXTS = 12
VECTORS = np.eye(TEXTS, dtype=np.float32)
VECTORS[1] = [0.9999, 0.0141, *[0] * (TEXTS - 2)]  # nearly text 0
VECTORS[2] = [0.99, 0, 0.1411, *[0] * (TEXTS - 3)]  # like text 0, but no copy
CHUNKS = st.lists(st.integers(0, TEXTS - 1), min_size=1, max_size=9)
DOCUMENTS = st.lists(st.tuples(st.sampled_from(["train", "val", "test"]), CHUNKS), min_size=1, max_size=6)


def of_numbers(documents: list[tuple[str, list[int]]], path: Path) -> Dataset:
    """A dataset whose texts are numbers, with the vector of each."""
    given = [(f"document {i}", split, [str(number) for number in own]) for i, (split, own) in enumerate(documents)]
    return in_memory(given, path, VECTORS[[number for _, own in documents for number in own]])


def spelled_out(documents: list[tuple[str, list[int]]], split: str, length: int, size: int, left_out: set[int]) -> dict[str, object]:
    """The windows by their definition, row by row."""
    rows = [(doc, index, number) for doc, (_, own) in enumerate(documents) for index, number in enumerate(own)]
    mine = [row for row, (doc, _, _) in enumerate(rows) if split in ("all", documents[doc][0])]
    train = {number for part, own in documents if part == "train" for number in own}
    copies = train | ({0, 1} if train & {0, 1} else set())
    dropped = {row for row in mine if split in ("val", "test") and rows[row][2] in copies} | left_out
    first: dict[int, int] = {}
    for row in mine:
        if row not in dropped:
            first.setdefault(rows[row][2], row)
    pool = sorted(first.values())
    if len(pool) > size:
        pool = sorted(np.random.default_rng(0).choice(pool, size, replace=False).tolist())
    targets = [row for row in pool if rows[row][1] >= length]
    hidden = [[i for i, row in enumerate(pool) if rows[row][0] == rows[t][0] and 1 <= t - row <= REACH] for t in targets]
    keys = "\n".join(f"document {rows[row][0]}:{rows[row][1]}" for row in pool)
    return {
        "pool": pool, "targets": targets, "docs": [rows[t][0] for t in targets], "hidden": hidden, "dropped": len(dropped),
        "pool_hash": hashlib.sha256(keys.encode()).hexdigest(),
    }  # fmt: skip


@given(st.data(), DOCUMENTS, st.sampled_from(["train", "val", "test", "all"]), st.integers(1, REACH), st.integers(2, 8))
def test_windows_are_those_of_the_definition(data: st.DataObject, documents: list, split: str, length: int, size: int) -> None:
    total = sum(len(own) for _, own in documents)
    left_out = data.draw(st.none() | st.sets(st.integers(0, total - 1), max_size=3))
    expected = spelled_out(documents, split, length, size, left_out or set())
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXCLUDED_BEFORE", REACH)
        made = of_numbers(documents, Path(folder))
        leave_out = None if left_out is None else np.array(sorted(left_out), np.int64)
        if len(expected["targets"]) < 2:  # type: ignore[arg-type]
            with pytest.raises(InputError, match="can be scored"):
                make_windows(made, split, length, size, torch.device("cpu"), leave_out)
            return
        found = make_windows(made, split, length, size, torch.device("cpu"), leave_out)
    assert found.context_length == length
    assert expected == {
        "pool": found.pool.tolist(), "targets": found.targets.tolist(), "docs": found.docs.tolist(), "dropped": found.dropped,
        "hidden": [list(range(low, high)) for low, high in found.excluded], "pool_hash": found.pool_hash,
    }  # fmt: skip


def test_two_queries_are_enough_and_one_is_too_few(tmp_path: Path, cpu: torch.device) -> None:
    made = of_numbers([("val", [3, 4, 5])], tmp_path)
    assert make_windows(made, "val", 1, ALL, cpu).targets.tolist() == [1, 2]
    with pytest.raises(InputError, match="'val' has no document with more than 2 chunks"):
        make_windows(made, "val", 2, ALL, cpu)


@pytest.mark.parametrize("count", [1, 40, 59])
def test_fewer_queries_are_a_fixed_sample_among_the_same_pool(tmp_path: Path, cpu: torch.device, count: int) -> None:
    made = in_memory([("a", "val", [str(i) for i in range(61)])], tmp_path)
    windows = make_windows(made, "val", 1, ALL, cpu)
    some = windows.at_most(count)
    which = np.sort(np.random.default_rng(0).choice(60, count, replace=False))
    assert some.targets.tolist() == windows.targets[which].tolist()
    assert some.docs.tolist() == windows.docs[which].tolist() and some.excluded.tolist() == windows.excluded[which].tolist()
    assert some.pool is windows.pool and some.pool_hash == windows.pool_hash


def test_as_many_queries_as_there_are_remain_as_they_are(tmp_path: Path, cpu: torch.device) -> None:
    windows = make_windows(in_memory([("a", "val", ["1", "2", "3"])], tmp_path), "val", 1, ALL, cpu)
    assert windows.at_most(2) is windows and windows.at_most(100) is windows


def test_copies_are_vectors_from_a_cosine_of_995_on(dataset: Dataset, cpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    cosines = np.array([0.99499, 0.995, 0.99501, -np.inf], np.float32)
    monkeypatch.setattr(module, "nearest_train_cosines", lambda *_: cosines)
    assert near_copies(np.empty((4, 2), np.float32), dataset, cpu).tolist() == [False, True, True, False]


def test_the_nearest_training_vector_is_found_among_all_of_many(tmp_path: Path, cpu: torch.device) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(16_400, 3)).astype(np.float32)
    made = in_memory([("a", "train", ["."] * 16_390), ("b", "val", ["."] * 10)], tmp_path, vectors)
    queries = rng.normal(size=(4_100, 3)).astype(np.float32)
    copied = {0: 0, 4_095: 8_191, 4_096: 8_192, 4_097: 16_383, 4_098: 16_384, 4_099: 16_389}
    for query, row in copied.items():
        vectors[row] *= 100  # a length that does not matter
        queries[query] = vectors[row]
    found = nearest_train_cosines(queries, made, cpu)
    units = vectors[:16_390] / np.linalg.norm(vectors[:16_390], axis=1, keepdims=True)
    expected = (queries[:50] / np.linalg.norm(queries[:50], axis=1, keepdims=True) @ units.T).max(1)
    np.testing.assert_allclose(found[:50], expected, atol=1e-6)
    np.testing.assert_allclose(found[list(copied)], 1, atol=1e-6)


def test_without_training_vectors_or_with_unusable_ones_there_is_no_nearest(tmp_path: Path, cpu: torch.device) -> None:
    alone = in_memory([("a", "val", ["1", "2"])], tmp_path)
    assert nearest_train_cosines(alone.vectors, alone, cpu).tolist() == [-np.inf, -np.inf]
    vectors = np.array([[np.nan, 0], [1, 0], [0, 1]], np.float32)
    made = in_memory([("a", "train", ["1", "2"]), ("b", "val", ["3"])], tmp_path, vectors)
    assert nearest_train_cosines(vectors, made, cpu).tolist() == [-np.inf, 1, 0]


def test_contexts_come_in_batches_of_256(cpu: torch.device) -> None:
    vectors, targets = np.arange(600, dtype=np.float32)[:, None], np.arange(2, 600)
    for parts in (contexts(vectors, targets, 2, cpu), contexts_of_rows(vectors, targets[:, None] + np.array([-2, -1]), cpu)):
        read = list(parts)
        assert [len(part) for part in read] == [256, 256, 86]
        assert torch.cat(read)[..., 0].tolist() == [[target - 2, target - 1] for target in targets]
