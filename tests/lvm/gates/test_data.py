"""Each gate on the data passes real text and fails a poisoned copy of it, naming where and what to do."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.errors import GateRefused
from lvm.gates.data import CPU, chunk_order, data_gates, duplicates, lag_profile, pairing, split_leakage
from lvm.gates.result import GateResult, gate_result, require
from lvm.gates.stages import stage_gates
from tests.support.poisoned_data import boundaries_lost, changed, column, copied, mixed, stored_twice, within_documents

LIMITS = GateThresholds()
Poison = Callable[..., Dataset]


@pytest.fixture()
def poisoned(dataset: Dataset, tmp_path: Path) -> Poison:
    """Makes a copy of the real dataset with other vectors or columns."""
    return partial(changed, dataset, tmp_path / "poisoned")


def failed(result: GateResult) -> str:
    """Reason and remedy of a gate that has failed, which has both."""
    assert (result.passed, result.severity) == (False, "fail"), result
    assert result.reason and result.remedy
    return result.sentence


def test_clean_text_passes_every_gate(dataset: Dataset) -> None:
    results = data_gates(dataset, LIMITS)
    assert [result.name for result in results] == list(stage_gates("data")) == ["chunk_order", "split_leakage", "duplicates", "pairing"]
    for result in results:
        assert (result.passed, result.severity) == (True, "ok"), result
    require(results)


# chunk_order


@pytest.mark.parametrize("seed", range(4))
def test_text_whose_chunks_were_shuffled_within_documents_fails_chunk_order(dataset: Dataset, poisoned: Poison, seed: int) -> None:
    shuffled = poisoned(within_documents(dataset, np.random.default_rng(seed).permutation))
    result = chunk_order(shuffled, LIMITS)
    assert "check how the text was ingested" in failed(result)
    assert abs(result.value) < 0.02 < 0.08 < chunk_order(dataset, LIMITS).value
    profile, _ = lag_profile(shuffled)
    assert np.ptp(profile) < 0.02, "without order no lag is nearer than another"


def test_adjacent_chunks_of_clean_text_are_more_alike_than_distant_ones(dataset: Dataset) -> None:
    profile, lead = lag_profile(dataset)
    assert profile == sorted(profile, reverse=True)
    assert profile[0] - profile[-1] > 0.03
    assert lead.above_zero()
    result = chunk_order(dataset, LIMITS)
    assert f"rho(1) - rho(5) = {profile[0] - profile[-1]:.3f}" in result.reason
    assert all(f"{value:.3f}" in result.reason for value in profile)


def test_the_lead_is_that_over_an_average_shuffle(dataset: Dataset) -> None:
    _, lead = lag_profile(dataset)
    adjacent, shuffled = [], []
    for start, stop in zip(dataset.starts[:-1], dataset.starts[1:], strict=True):
        x = dataset.vectors[start:stop] / np.linalg.norm(dataset.vectors[start:stop], axis=1, keepdims=True)
        products = x @ x.T
        adjacent.append(np.diagonal(products, 1))
        shuffled.append(np.full(len(x) - 1, products[~np.eye(len(x), dtype=bool)].mean()))
    assert lead.value == pytest.approx(float((np.concatenate(adjacent) - np.concatenate(shuffled)).mean()), abs=1e-5)


def test_order_that_is_nearly_lost_warns(dataset: Dataset, poisoned: Poison) -> None:
    # Every document shuffled but for its first seventh.
    def mostly(n: int) -> np.ndarray:
        kept = n // 7
        return np.concatenate([np.arange(kept), kept + np.random.default_rng(n).permutation(n - kept)])

    result = chunk_order(poisoned(within_documents(dataset, mostly)), LIMITS)
    assert (result.passed, result.severity) == (True, "warn"), result
    assert 0 < result.value < LIMITS.chunk_order_warn


def test_documents_that_run_into_each_other_fail_chunk_order_by_name(dataset: Dataset, tmp_path: Path) -> None:
    merged = boundaries_lost(dataset, tmp_path)
    reason = failed(chunk_order(merged, LIMITS))
    assert "cross documents" in reason and any(doc_id in reason for doc_id in merged.doc_ids)


@pytest.mark.parametrize("damage", ["gap", "from one", "swapped"])
def test_positions_that_a_window_would_jump_over_fail_chunk_order_by_name(dataset: Dataset, poisoned: Poison, damage: str) -> None:
    index, start, stop = np.array(dataset.chunk_index), dataset.starts[17], dataset.starts[18]
    if damage == "gap":
        index[start + 5 : stop] += 1
    elif damage == "from one":
        index[start:stop] += 1
    else:
        index[start + 5 : start + 7] = index[start + 5 : start + 7][::-1]
    reason = failed(chunk_order(poisoned(columns={"chunk_index": index}), LIMITS))
    assert f"['{dataset.doc_ids[17]}']" in reason and "extract again" in reason


def test_documents_too_few_for_an_interval_fail_chunk_order_with_the_remedy(dataset: Dataset) -> None:
    rows = int(dataset.starts[4])
    four = replace(
        dataset,
        table=dataset.table.slice(0, rows),
        vectors=dataset.vectors[:rows],
        doc_ids=dataset.doc_ids[:4],
        starts=dataset.starts[:5],
        doc_splits=dataset.doc_splits[:4],
    )
    assert "too few documents" in failed(chunk_order(four, LIMITS))


# split_leakage


@pytest.mark.parametrize("other", ["val", "test"])
def test_document_in_two_splits_fails_split_leakage_by_name(dataset: Dataset, poisoned: Poison, other: str) -> None:
    doc = int(dataset.docs("train")[3])
    splits = column(dataset, "split")
    splits[dataset.starts[doc + 1] - 1] = other  # its last chunk alone
    result = split_leakage(poisoned(columns={"split": splits}), LIMITS)
    reason = failed(result)
    assert result.value == 1
    assert dataset.doc_ids[doc] in reason and "split by document, extract again" in reason


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("what", ["texts", "vectors", "both"])
def test_rows_copied_from_train_fail_split_leakage_by_name(dataset: Dataset, poisoned: Poison, split: str, what: str) -> None:
    vectors, texts, rows = copied(dataset, split, 0.12, what)
    result = split_leakage(poisoned(vectors, {"text": texts}), LIMITS)
    reason = failed(result)
    assert 0.12 <= result.value + 0.001 < 0.16
    docs, counts = np.unique(dataset.row_doc[rows], return_counts=True)
    assert dataset.doc_ids[docs[counts.argmax()]] in reason
    assert "remove copied documents, or lower splits.min_shared" in reason


def test_the_worst_documents_are_named_whichever_split_they_are_in(dataset: Dataset, poisoned: Poison) -> None:
    vectors, texts, rows = copied(dataset, "val", 0.3, "vectors")
    one = int(dataset.rows("test")[5])
    vectors[one] = vectors[dataset.rows("train")[0]]
    reason = failed(split_leakage(poisoned(vectors, {"text": texts}), LIMITS))
    docs, counts = np.unique(dataset.row_doc[rows], return_counts=True)
    assert dataset.doc_ids[docs[counts.argmax()]] in reason


def test_a_few_copied_rows_warn_and_are_not_scored(dataset: Dataset, poisoned: Poison) -> None:
    vectors, texts, _ = copied(dataset, "test", 0.06, "both")
    result = split_leakage(poisoned(vectors, {"text": texts}), LIMITS)
    assert (result.passed, result.severity) == (True, "warn"), result
    assert LIMITS.leaked_rows_warn < result.value < LIMITS.leaked_rows_fail
    assert "left out of scoring" in result.reason and "remove copied documents" in result.remedy


def test_rows_that_are_copied_almost_exactly_count_as_copied(dataset: Dataset, poisoned: Poison) -> None:
    vectors, texts, rows = copied(dataset, "test", 0.12, "vectors")
    vectors[rows] += np.random.default_rng(0).normal(scale=0.03 / np.sqrt(dataset.dim), size=(len(rows), dataset.dim)).astype(np.float32)
    failed(split_leakage(poisoned(vectors, {"text": texts}), LIMITS))


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_empty_split_fails_split_leakage_with_the_remedy(dataset: Dataset, tmp_path: Path, missing: str) -> None:
    rest = {"train": "val", "val": "test", "test": "train"}[missing]
    splits = np.where(dataset.doc_splits == missing, rest, dataset.doc_splits)
    data = replace(
        dataset,
        path=tmp_path,
        doc_splits=splits,
        table=dataset.table.set_column(3, "split", pa.array(splits[dataset.row_doc].tolist())),
    )
    reason = failed(split_leakage(data, LIMITS))
    assert f"split '{missing}' is empty" in reason and "give more documents" in reason


# duplicates


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


# pairing


@pytest.mark.parametrize("splits", [["val"], ["test"], ["val", "test"], ["train"]])
def test_rows_mispaired_across_documents_fail_pairing(dataset: Dataset, poisoned: Poison, splits: list[str]) -> None:
    result = pairing(poisoned(mixed(dataset, splits)), LIMITS)
    reason = failed(result)
    assert result.value > LIMITS.pairing_difference > 3 * pairing(dataset, LIMITS).value
    assert "come from different rows" in reason and "extract again" in reason


def test_pairing_shows_the_mean_of_each_split(dataset: Dataset) -> None:
    result = pairing(dataset, LIMITS)
    means = {}
    for split in ("train", "val", "test"):
        found = []
        for doc in dataset.docs(split):
            x = dataset.vectors[dataset.starts[doc] : dataset.starts[doc + 1]]
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
            found.append((x[:-1] * x[1:]).sum(1))
        means[split] = float(np.concatenate(found).mean())
        assert f"{split} {means[split]:.3f}" in result.reason
    assert result.value == pytest.approx(max(abs(means[split] - means["train"]) for split in ("val", "test")), abs=1e-6)


def test_repeated_window_keys_fail_pairing(dataset: Dataset, poisoned: Poison) -> None:
    index = np.array(dataset.chunk_index)
    rows = np.setdiff1d(np.arange(dataset.n_rows), dataset.starts)[::50]
    index[rows] = index[rows - 1]
    result = pairing(poisoned(columns={"chunk_index": index}), LIMITS)
    assert "distinct window keys 98." in failed(result)


# All together


def test_refusal_names_every_gate_that_failed_and_no_other(dataset: Dataset, poisoned: Poison) -> None:
    vectors = within_documents(dataset, np.random.default_rng(0).permutation)
    vectors[dataset.starts[7]] = 0
    results = data_gates(poisoned(vectors), LIMITS)
    assert {result.name for result in results if not result.passed} == {"chunk_order", "duplicates"}
    with pytest.raises(GateRefused) as caught:
        require(results)
    assert "chunk_order: " in str(caught.value) and f"duplicates: 1 vectors are zero or not finite, most in {dataset.doc_ids[7]}" in str(
        caught.value
    )
    assert "pairing" not in str(caught.value) and "split_leakage" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_warning_passes_and_failure_outranks_it() -> None:
    warned = gate_result("gate", 1, 2, failed=False, reason="why", remedy="do it", warned=True)
    assert (warned.passed, warned.severity) == (True, "warn")
    assert gate_result("gate", 1, 2, failed=True, reason="why", remedy="do it", warned=True).severity == "fail"
    require([warned])
    shown = {"name": "gate", "passed": True, "severity": "warn", "value": 1.0, "threshold": 2.0, "reason": "why", "remedy": "do it"}
    assert warned.as_json() == shown
    assert warned.sentence == "why: do it"


def test_a_gate_that_is_ok_has_nothing_to_remedy() -> None:
    passed = gate_result("gate", 1, 2, failed=False, reason="why", remedy="do it")
    assert (passed.severity, passed.remedy, passed.sentence) == ("ok", "", "why")


@pytest.mark.parametrize("gate", stage_gates("data"))
def test_result_on_data_with_broken_vectors_is_a_number(dataset: Dataset, poisoned: Poison, gate: str) -> None:
    vectors = np.array(dataset.vectors)
    vectors[::40] = np.nan
    vectors[1::40] = np.inf
    result = stage_gates("data")[gate](poisoned(vectors), LIMITS, CPU)
    assert np.isfinite(result.value)
