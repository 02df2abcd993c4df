"""The gate `chunk_order` passes text in order, and fails text whose order was lost, naming where and what to do."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.evaluation.intervals import Interval
from lvm.gates.data.chunk_order import chunk_order
from lvm.gates.data.order import (
    LEVEL,
    Order,
    continues,
    deviations_of_orders,
    mean_of_orders,
    order_of,
    order_p,
    reach_of,
    sentence_cosines,
)
from tests.support.planted import planted
from tests.support.poisoned_data import (
    Poison,
    boundaries_lost,
    changed,
    column,
    failed,
    sentence_numbers,
    sentences_shuffled,
    within_documents,
)

LIMITS = GateThresholds()


@pytest.fixture(scope="module")
def numbers(dataset: Dataset, small_corpus: Path, encoder: Encoder) -> np.ndarray:
    """Which sentence of its document each row of the real dataset is a piece of."""
    return sentence_numbers(dataset, small_corpus, encoder)


def pieces_of_sentences(dataset: Dataset, folder: Path, pieces: list[int]) -> Dataset:
    """One document of real vectors, whose sentences were cut into so many pieces each."""
    count = sum(pieces)
    last = np.cumsum(pieces) - 1
    one = replace(dataset, table=dataset.table.slice(0, count), vectors=dataset.vectors[:count], starts=np.array([0, count]))
    texts = [f"Piece {i}" + "." * (i in last) for i in range(count)]
    return changed(one, folder, columns={"text": texts, "n_tokens": [60] * count})


def long_sentences(folder: Path, shuffled: bool) -> Dataset:
    """Twenty documents of forty sentences in three pieces each, these very alike; the sentences' subjects drift, unless shuffled."""
    rng = np.random.default_rng(0)
    documents = []
    for _ in range(20):
        subjects = rng.normal(size=(40, 16)).cumsum(0)
        if shuffled:
            subjects = rng.permutation(subjects)
        documents.append(np.repeat(subjects - subjects.mean(0), 3, axis=0) + 0.3 * rng.normal(size=(120, 16)))
    folder.mkdir()
    data = planted(folder, documents)
    texts = [f"{text}{'.' * (row % 3 == 2)}" for row, text in enumerate(column(data, "text"))]
    return changed(data, folder, columns={"text": texts, "n_tokens": [60] * data.n_rows})


@pytest.mark.parametrize("seed", range(4))
def test_text_whose_chunks_were_shuffled_within_documents_fails_chunk_order(dataset: Dataset, poisoned: Poison, seed: int) -> None:
    shuffled = poisoned(within_documents(dataset, np.random.default_rng(seed).permutation))
    result = chunk_order(shuffled, LIMITS)
    assert "check how the text was ingested" in failed(result)
    assert abs(result.value) < 0.02 < 0.08 < chunk_order(dataset, LIMITS).value
    assert np.ptp(order_of(shuffled).profile) < 0.02, "without order no lag is nearer than another"


def test_adjacent_chunks_of_clean_text_are_more_alike_than_distant_ones(dataset: Dataset) -> None:
    found = order_of(dataset)
    profile, lead = found.profile, found.lead
    assert profile == sorted(profile, reverse=True)
    assert profile[0] - profile[-1] > 0.03
    assert lead.above_zero()
    result = chunk_order(dataset, LIMITS)
    assert f"rho(1) - rho(5) = {profile[0] - profile[-1]:.3f}" in result.reason
    assert all(f"{value:.3f}" in result.reason for value in profile)


def test_the_lead_is_that_over_all_orders_of_whole_sentences(dataset: Dataset, tmp_path: Path) -> None:
    # A document of five sentences, of which the second and the fourth are cut into two pieces: all 120 orders, one by one.
    one = pieces_of_sentences(dataset, tmp_path, [1, 2, 1, 2, 1])
    cosines = sentence_cosines(one, 0)
    assert cosines.shape == (5, 5)
    means = []
    for order in itertools.permutations(range(5)):
        means.append(np.mean([cosines[a, b] for a, b in itertools.pairwise(order)]))
    assert mean_of_orders(cosines) == pytest.approx(np.mean(means), abs=1e-12)


def test_pieces_of_one_sentence_are_not_compared_with_each_other(dataset: Dataset, tmp_path: Path) -> None:
    one = pieces_of_sentences(dataset, tmp_path, [1, 2, 3])
    assert continues(one, 0, 6).tolist() == [False, False, True, False, True, True]
    x = one.vectors / np.linalg.norm(one.vectors, axis=1, keepdims=True)
    assert sentence_cosines(one, 0)[0, 1] == pytest.approx(x[0] @ x[1], abs=1e-6), "the last chunk of one, the first of the next"
    assert sentence_cosines(one, 0)[1, 2] == pytest.approx(x[2] @ x[3], abs=1e-6)


def test_most_chunks_that_continue_a_sentence_are_recognised(dataset: Dataset, numbers: np.ndarray) -> None:
    found = np.concatenate([continues(dataset, *span) for span in zip(dataset.starts[:-1], dataset.starts[1:], strict=True)])
    truth = np.append(False, (np.diff(numbers) == 0) & (np.diff(dataset.row_doc) == 0))
    assert truth.sum() > 20
    assert found[truth].mean() > 0.95 and truth[found].mean() > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_whole_sentences_in_random_order_fail_chunk_order(dataset: Dataset, tmp_path: Path, numbers: np.ndarray, seed: int) -> None:
    shuffled = sentences_shuffled(dataset, tmp_path, numbers, range(len(dataset.doc_ids)), seed)
    assert "was lost" in failed(chunk_order(shuffled, LIMITS))


def test_long_sentences_cut_into_alike_pieces_do_not_hide_that_their_order_was_lost(tmp_path: Path) -> None:
    in_order = long_sentences(tmp_path / "in order", shuffled=False)
    lost = long_sentences(tmp_path / "lost", shuffled=True)
    x = lost.vectors / np.linalg.norm(lost.vectors, axis=1, keepdims=True)
    assert (x[:-1] * x[1:]).sum(1).mean() > 0.5, "neighbouring chunks are alike all the same"
    assert chunk_order(in_order, LIMITS).severity == "ok"
    assert "order of chunks was lost" in failed(chunk_order(lost, LIMITS))


def test_half_of_the_documents_shuffled_fail_chunk_order(dataset: Dataset, tmp_path: Path, numbers: np.ndarray) -> None:
    half = sentences_shuffled(dataset, tmp_path, numbers, range(0, len(dataset.doc_ids), 2))
    assert order_of(half).lead.above_zero()
    assert "the order of some documents was lost" in failed(chunk_order(half, LIMITS))


@pytest.mark.parametrize("sentences", [2, 3, 5])
def test_paragraphs_in_random_order_fail_chunk_order(dataset: Dataset, tmp_path: Path, numbers: np.ndarray, sentences: int) -> None:
    paragraphs = sentences_shuffled(dataset, tmp_path, numbers // sentences, range(len(dataset.doc_ids)))
    assert order_of(paragraphs).lead.above_zero(), "the sentences of a paragraph are in order"
    assert "The order ends after a few sentences" in failed(chunk_order(paragraphs, LIMITS))


def test_a_glossary_passes_where_the_setting_says_that_its_entries_are_unconnected(dataset: Dataset, tmp_path: Path) -> None:
    # An entry has three sentences of one subject; no two entries have to do with each other.
    rng = np.random.default_rng(0)
    data = planted(tmp_path, [np.repeat(rng.normal(size=(10, 16)), 3, axis=0) + 0.5 * rng.normal(size=(30, 16)) for _ in range(20)])
    assert "entry by entry" in failed(chunk_order(data, LIMITS))
    assert chunk_order(data, GateThresholds(order_reach=-0.5)).passed


def test_the_reach_compares_sentences_five_to_ten_apart_with_those_further_apart() -> None:
    cosines = np.random.default_rng(0).normal(size=(18, 18))
    apart = np.subtract.outer(np.arange(18), np.arange(18)).T  # how many sentences later the second one stands
    middle, further = cosines[(apart >= 5) & (apart <= 10)], cosines[apart > 10]
    assert reach_of(cosines) == pytest.approx(middle.mean() - further.mean())


def test_pieces_of_up_to_five_sentences_in_random_order_have_no_reach_on_average() -> None:
    rng, found = np.random.default_rng(0), []
    drift = rng.normal(size=(40, 8)).cumsum(0)
    for _ in range(400):
        x = drift[np.concatenate([np.arange(5 * piece, 5 * piece + 5) for piece in rng.permutation(8)])]
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        found.append(reach_of(x @ x.T))
    assert reach_of(drift @ drift.T) > 1 > 0.05 > abs(np.mean(found))


def test_a_long_document_weighs_more_in_the_reach_by_its_sentences_beyond_ten(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = planted(tmp_path, [rng.normal(size=(n, 16)).cumsum(0) for n in (15, 16, 20, 20, 30, 60)])
    far = order_of(data).far
    assert sorted(far[:, 0]) == [6, 10, 10, 20, 50], "the document of fifteen sentences is too short"
    order = order_of(data)
    assert order.reach().value == pytest.approx(np.average(far[:, 1], weights=far[:, 0]))
    assert order.reach(less=0.2).value == pytest.approx(np.average(far[:, 1] - 0.2 * far[:, 2], weights=far[:, 0]))


def test_any_one_sign_of_order_is_enough() -> None:
    none, some = Interval(0.0, -1.0, 1.0), Interval(1.0, 0.5, 1.5)
    near, far = np.tile([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [1.0, -0.1, 0.0]], (3, 1)), np.tile([[1.0, 1.0, 0.0], [1.0, 1.1, 0.0]], (4, 1))
    assert not Order([0.1], none, 2.0, near, 20, 5).visible()
    assert Order([0.1], some, 2.0, near, 20, 5).visible(), "neighbours lead in other documents of the kind too"
    assert Order([0.1], none, 3.0, near, 20, 5).visible(), "neighbours lead beyond chance in these documents"
    assert Order([0.1], none, 2.0, far, 20, 5).visible(), "sentences of one part are more alike"
    assert Order([0.1], none, 2.0, near, 20, 8).visible(), "more documents are in order than a fifth"


def test_the_share_of_shuffled_documents_allows_for_those_that_chance_calls_in_order() -> None:
    none = Interval(0.0, None, None)
    share, least = Order([0.1], none, 0.0, np.zeros((0, 3)), tested=50, in_order=30).shuffled()
    assert share == pytest.approx(20 / 50 / 0.8)
    # Of 50 documents 20 or more look shuffled once in a hundred times where .2427 of all do.
    assert least == pytest.approx(0.2427 / 0.8, abs=2e-4)
    assert Order([0.1], none, 0.0, np.zeros((0, 3)), tested=50, in_order=1).shuffled()[0] == 1, "and no more than all"
    assert Order([0.1], none, 0.0, np.zeros((0, 3)), tested=0, in_order=0).shuffled() == (0, 0)


def test_documents_of_twenty_sentences_are_tested_one_by_one_and_shorter_ones_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    assert order_of(planted(tmp_path, [rng.normal(size=(n, 8)) for n in (19, 20, 20, 21)])).tested == 3


def test_documents_of_five_sentences_or_fewer_fail_chunk_order_with_the_remedy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    result = chunk_order(planted(tmp_path, [rng.normal(size=(5, 8)) for _ in range(12)]), LIMITS)
    assert failed(result).endswith("too few to tell their order from a shuffle: give longer documents")
    assert (result.value, result.threshold) == (0, 0)


def test_a_list_whose_lines_alternate_is_in_order(tmp_path: Path) -> None:
    # Neighbours are less alike than other lines, as in a change log: a line of what, a line of who.
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(2, 16))
    data = planted(tmp_path, [kinds[np.arange(30) % 2] + rng.normal(size=(30, 16)) for _ in range(20)])
    result = chunk_order(data, LIMITS)
    assert result.passed and result.value < 0


def test_order_that_is_hardly_visible_warns(dataset: Dataset) -> None:
    lead = chunk_order(dataset, LIMITS).value
    assert chunk_order(dataset, GateThresholds(chunk_order_warn=lead + 0.01)).severity == "warn"
    assert chunk_order(dataset, GateThresholds(chunk_order_warn=lead - 0.01)).severity == "ok"


def test_equal_vectors_show_no_order(dataset: Dataset, poisoned: Poison) -> None:
    failed(chunk_order(poisoned(np.ones_like(dataset.vectors)), LIMITS))


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_vectors_rarely_look_ordered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(100):
        x = rng.normal(size=(25, 8))
        found.append(order_p(x @ x.T, deviations_of_orders(x @ x.T, rng)) < LEVEL)
    assert sum(found) <= 40, "a fifth of a hundred, and five standard deviations"


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
