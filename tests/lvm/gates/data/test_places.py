"""Chunks that were exchanged with those of other documents are found by what surrounds them."""

from pathlib import Path

import numpy as np
import pytest

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.gates.data.pairing import pairing
from lvm.gates.data.places import Misplaced, Places, surroundings, surroundings_of_row
from tests.support.planted import planted
from tests.support.poisoned_data import Poison, failed

LIMITS = GateThresholds()


def exchanged(dataset: Dataset, share: float, seed: int = 0) -> np.ndarray:
    """Vectors in which that share of the rows was permuted among themselves."""
    rng, vectors = np.random.default_rng(seed), np.array(dataset.vectors)
    rows = np.flatnonzero(rng.random(dataset.n_rows) < share)
    vectors[rows] = dataset.vectors[rng.permutation(rows)]
    return vectors


def without_texts(dataset: Dataset) -> dict[str, list[str]]:
    """Texts of which none occurs twice, so that only the vectors can tell."""
    return {"text": [f"{row}" for row in range(dataset.n_rows)]}


def drifting(rng: np.random.Generator, chunks: int) -> np.ndarray:
    """A document whose subject changes slowly."""
    return 3 * rng.normal(size=32) + rng.normal(size=(chunks, 32)).cumsum(0) / 2 + rng.normal(size=(chunks, 32))


@pytest.mark.parametrize("seed", range(3))
def test_a_fifth_of_the_chunks_exchanged_fails_pairing_with_its_share(dataset: Dataset, poisoned: Poison, seed: int) -> None:
    data = poisoned(exchanged(dataset, 0.2, seed=seed), without_texts(dataset))
    found = Places(data).misplaced(data.docs("all"))
    assert 0.1 < found.share < 0.3
    assert f"as if {found.share:.0%} had been exchanged" in failed(pairing(data, LIMITS))


def test_chunks_at_their_own_places_are_rarely_found(dataset: Dataset) -> None:
    found = Places(dataset).misplaced(dataset.docs("all"))
    assert found.chunks > 300 and found.share < 0.04
    assert not found.surely_over(LIMITS.misplaced_chunks)


def test_a_limit_of_one_lets_exchanged_chunks_pass(dataset: Dataset, poisoned: Poison) -> None:
    data = poisoned(exchanged(dataset, 0.2), without_texts(dataset))
    assert pairing(data, GateThresholds(misplaced_chunks=1)).severity == "ok"


def test_exchanged_chunks_warn_from_half_of_the_limit_on(dataset: Dataset, poisoned: Poison) -> None:
    data = poisoned(exchanged(dataset, 0.1), without_texts(dataset))
    found = Places(data).misplaced(data.docs("all"))
    limit = next(limit for limit in np.arange(0, 1, 0.001) if not found.surely_over(limit))  # the least that it is not surely over
    reason = f"as if {found.share:.0%} had been exchanged"
    warned = pairing(data, GateThresholds(misplaced_chunks=limit))
    assert warned.severity == "warn" and reason in warned.reason and warned.remedy
    assert reason in failed(pairing(data, GateThresholds(misplaced_chunks=limit - 0.001)))
    assert pairing(data, GateThresholds(misplaced_chunks=2 * limit)).severity == "ok"


def test_documents_of_unconnected_lines_are_not_counted(tmp_path: Path) -> None:
    # Two thirds of the documents are lists of random lines, whose own places fit them no better than others.
    rng = np.random.default_rng(0)
    lists, prose = [rng.normal(size=(30, 32)) for _ in range(40)], [drifting(rng, 30) for _ in range(20)]
    data = planted(tmp_path, lists + prose)
    found = Places(data).misplaced(data.docs("all"))
    assert found.chunks == 15 * 30, "a quarter of the documents"
    assert found.share < 0.02
    assert Places(data).misplaced(np.arange(40)).share > 0.3, "among lists alone there are no better ones"


def test_a_chunk_is_tried_at_places_of_other_documents_without_itself_and_beside_two_chunks_on_each_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = planted(tmp_path, [rng.normal(size=(n, 8)) for n in (9, 12, 8, 10, 11)])
    unit = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)
    around = np.zeros_like(unit)
    for row in range(data.n_rows):
        beside = [r for r in (row - 2, row - 1, row + 1, row + 2) if 0 <= r < data.n_rows and data.row_doc[r] == data.row_doc[row]]
        around[row] = unit[beside].sum(0) / np.linalg.norm(unit[beside].sum(0))
    places = Places(data)  # all fifty rows: fewer than are drawn
    for doc in range(5):
        own, others = np.flatnonzero(data.row_doc == doc), np.flatnonzero(data.row_doc != doc)
        expected = [np.mean(around[others] @ unit[row] > around[row] @ unit[row]) for row in own]
        assert places.better_elsewhere(doc) == pytest.approx(expected)
    assert surroundings(unit[9:21]) == pytest.approx(around[9:21], abs=1e-6)
    assert all(surroundings_of_row(data, row) == pytest.approx(around[row], abs=1e-6) for row in range(data.n_rows))


def test_a_chunk_without_neighbours_has_no_surroundings() -> None:
    assert surroundings(np.ones((1, 3))).tolist() == [[0, 0, 0]]
    assert surroundings(np.eye(3)[:2]).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_short_documents_and_a_few_long_ones_tell_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = planted(tmp_path, [rng.normal(size=(n, 8)) for n in (7, 7, 7, 7, 8, 8, 8, 8)])
    places = Places(data)
    assert places.misplaced(np.arange(7)) == Misplaced(0, 0), "three of eight chunks"
    assert places.misplaced(np.arange(8)).chunks == 8, "a quarter of four"
    assert not Misplaced(0, 0).surely_over(0.0)


def test_one_document_has_no_other_places(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    data = planted(tmp_path / "one", [np.random.default_rng(0).normal(size=(20, 8))])
    assert len(Places(data).better_elsewhere(0)) == 0
    assert Places(data).misplaced(np.arange(1)) == Misplaced(0, 0)


def test_the_share_is_sure_above_its_lower_99_per_cent_bound() -> None:
    # 30 of 200: chance finds 30 or more once in a hundred times where the true rate is .0963.
    found = Misplaced(30, 200)
    assert found.share == pytest.approx(30 / 200 / 0.3)
    assert found.surely_over(0.0960 / 0.3) and not found.surely_over(0.0965 / 0.3)
