"""The gate `duplicates` passes chunks that are stored once, and fails those stored twice, naming the documents."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.gates.data.duplicates import STRETCH, duplicates, repeated_stretches
from tests.support.poisoned_data import Poison, changed, doubled, failed, stored_twice

LIMITS = GateThresholds()


@pytest.mark.parametrize("renumbered", [False, True])
def test_every_chunk_stored_twice_fails_duplicates(dataset: Dataset, tmp_path: Path, renumbered: bool) -> None:
    result = duplicates(stored_twice(dataset, tmp_path, renumbered), LIMITS)
    reason = failed(result)
    assert result.value == pytest.approx(0.5, abs=0.02)
    assert "chunks were stored twice" in reason and "extract again" in reason
    assert ("occur twice" in reason) == (not renumbered)
    longest = dataset.doc_ids[int(np.diff(dataset.starts).argmax())]
    assert longest in reason, "the document with most of them is named"


def test_every_document_appended_to_itself_fails_by_its_repeated_keys(dataset: Dataset, tmp_path: Path) -> None:
    spans = zip(dataset.starts[:-1], dataset.starts[1:], strict=True)
    rows = np.concatenate([np.tile(np.arange(start, stop), 2) for start, stop in spans])
    data = replace(
        dataset, path=tmp_path, table=dataset.table.take(pa.array(rows)), vectors=dataset.vectors[rows], starts=2 * dataset.starts
    )
    result = duplicates(data, LIMITS)
    assert f"{dataset.n_rows} keys (doc_id, chunk_index) occur twice" in failed(result)
    assert result.value < LIMITS.adjacent_duplicates, "no neighbours are alike here"


def test_one_repeated_key_fails_duplicates_by_name(dataset: Dataset, poisoned: Poison) -> None:
    index = np.array(dataset.chunk_index)
    row = dataset.starts[11] + 6
    index[row] = index[row - 1]
    reason = failed(duplicates(poisoned(columns={"chunk_index": index}), LIMITS))
    assert f"1 keys (doc_id, chunk_index) occur twice, most in {dataset.doc_ids[11]} (1): extract again, each document once" in reason


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_one_vector_that_is_zero_or_not_finite_fails_duplicates_by_name(dataset: Dataset, poisoned: Poison, value: float) -> None:
    vectors = np.array(dataset.vectors)
    row = dataset.starts[23] + 4
    vectors[row, : 1 if value else None] = value
    reason = failed(duplicates(poisoned(vectors), LIMITS))
    assert f"1 vectors are zero or not finite, most in {dataset.doc_ids[23]} (1): extract again, each document once" in reason


@pytest.mark.parametrize(("share", "passes"), [(0.01, True), (0.03, False)])
def test_a_few_near_equal_neighbours_pass_and_more_do_not(dataset: Dataset, poisoned: Poison, share: float, passes: bool) -> None:
    vectors = np.array(dataset.vectors)
    inner = np.setdiff1d(np.arange(dataset.n_rows), dataset.starts)
    rows = np.random.default_rng(2).choice(inner[::2], int(share * dataset.n_rows), replace=False)
    vectors[rows] = vectors[rows - 1] * 1.01
    result = duplicates(poisoned(vectors), LIMITS)
    assert result.passed is passes
    assert result.value == pytest.approx(share, abs=0.003)
    assert passes or f"{result.value:.1%} of neighbouring chunks have cosine > 0.98" in result.reason


def test_equal_chunks_on_both_sides_of_a_document_boundary_are_no_duplicates(dataset: Dataset, poisoned: Poison) -> None:
    vectors = np.array(dataset.vectors)
    vectors[dataset.starts[1:-1]] = vectors[dataset.starts[1:-1] - 1]
    assert duplicates(poisoned(vectors), LIMITS).value == duplicates(dataset, LIMITS).value


def test_every_second_document_stored_twice_in_its_split_fails_duplicates(dataset: Dataset, tmp_path: Path) -> None:
    docs = range(0, len(dataset.doc_ids), 2)
    result = duplicates(doubled(dataset, tmp_path, docs, dataset.doc_splits[::2].tolist()), LIMITS)
    assert "of the chunks are in passages that occur again" in failed(result) and "-copy" in result.reason


def test_text_that_follows_itself_in_its_document_fails_duplicates(dataset: Dataset, tmp_path: Path) -> None:
    spans = zip(dataset.starts[:-1], dataset.starts[1:], strict=True)
    rows = np.concatenate([np.tile(np.arange(start, stop), 2) for start, stop in spans])
    starts = 2 * dataset.starts
    larger = replace(dataset, table=dataset.table.take(pa.array(rows)), starts=starts)
    index = np.arange(len(rows)) - np.repeat(starts[:-1], np.diff(starts))
    result = duplicates(changed(larger, tmp_path, dataset.vectors[rows], {"chunk_index": index.tolist()}), LIMITS)
    assert "passages that occur again" in failed(result) and "occur twice" not in result.reason


def test_one_table_of_numbers_warns_and_is_not_refused(dataset: Dataset, poisoned: Poison) -> None:
    vectors = np.array(dataset.vectors)
    longest = int(np.diff(dataset.starts).argmax())
    vectors[dataset.starts[longest] : dataset.starts[longest + 1]] = vectors[0]
    result = duplicates(poisoned(vectors), LIMITS)
    assert (result.severity, result.value > LIMITS.adjacent_duplicates) == ("warn", True)
    assert dataset.doc_ids[longest] in result.reason


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=4))
def test_repeated_passages_are_runs_of_five_texts_that_occurred_before(documents: list[list[int]]) -> None:
    codes = np.concatenate(documents)
    starts = np.cumsum([0, *map(len, documents)])
    data = SimpleNamespace(text_codes=codes, n_rows=len(codes), row_doc=np.repeat(np.arange(len(documents)), np.diff(starts)))
    seen, expected = set(), set()
    for start, document in zip(starts, documents, strict=False):
        for i in range(len(document) - STRETCH + 1):
            run = tuple(document[i : i + STRETCH])
            expected |= set(range(start + i, start + i + STRETCH)) if run in seen else set()
            seen.add(run)
    assert set(repeated_stretches(data).tolist()) == expected  # type: ignore[arg-type]
