"""All gates on the data together."""

from pathlib import Path

import numpy as np
import pytest

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.errors import GateRefused
from lvm.gates.data import data_gates
from lvm.gates.data.rows import CPU
from lvm.gates.result import gate_result, require
from lvm.gates.stages import stage_gates
from tests.support.poisoned_data import Poison, changed, reordered, within_documents

LIMITS = GateThresholds()


def test_clean_text_passes_every_gate(dataset: Dataset) -> None:
    results = data_gates(dataset, LIMITS)
    assert (
        [result.name for result in results]
        == list(stage_gates("data"))
        == ["chunk_order", "split_leakage", "duplicates", "readable", "pairing"]
    )
    for result in results:
        assert (result.passed, result.severity) == (True, "ok"), result
    require(results)


def test_refusal_names_every_gate_that_failed_and_no_other(dataset: Dataset, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation
    shuffled = reordered(dataset, tmp_path, within_documents(dataset, order, np.arange(dataset.n_rows)))
    vectors = np.array(shuffled.vectors)
    vectors[dataset.starts[7]] = 0
    results = data_gates(changed(shuffled, tmp_path, vectors), LIMITS)
    assert {result.name for result in results if not result.passed} == {"chunk_order", "duplicates", "pairing"}
    with pytest.raises(GateRefused) as caught:
        require(results)
    assert "chunk_order: " in str(caught.value) and f"duplicates: 1 vectors are zero or not finite, most in {dataset.doc_ids[7]}" in str(
        caught.value
    )
    assert "pairing: " in str(caught.value) and "split_leakage" not in str(caught.value)
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


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_vectors_that_are_all_alike_are_refused(dataset: Dataset, poisoned: Poison, value: float) -> None:
    results = data_gates(poisoned(np.full_like(dataset.vectors, value)), LIMITS)
    assert {"chunk_order", "duplicates", "pairing"} <= {result.name for result in results if not result.passed}
    assert all(np.isfinite(result.value) for result in results)
