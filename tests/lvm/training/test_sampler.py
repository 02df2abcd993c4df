"""Batches predict every position once, are diverse, stay inside documents, and follow from (seed, epoch, step) alone."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import SamplerConfig
from lvm.training.sampler import Batch, DiverseBatchSampler

COMMON = settings(max_examples=60, deadline=None)


def sampler(lengths: list[int], docs: list[int] | None = None, seed: int = 0, **config: int | None) -> DiverseBatchSampler:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    chosen = np.arange(len(lengths)) if docs is None else np.array(docs)
    return DiverseBatchSampler(starts, chosen, SamplerConfig(**config), seed)  # type: ignore[arg-type]


def predicted(batches: Iterable[Batch]) -> Counter[int]:
    """How often each row was a target."""
    return Counter(int(row) for batch in batches for row in batch.rows[:, 1:][batch.valid])


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[int], list[int], dict[str, int | None]]:
    """Lengths of documents, the ones to draw from, and a configuration."""
    lengths = draw(st.lists(st.integers(2, 45), min_size=1, max_size=8))
    docs = draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True).map(sorted))
    config = {
        "stretches": draw(st.integers(1, 6)),
        "length": draw(st.integers(2, 12)),
        "hard_negatives": draw(st.integers(0, 4)),
        "anchors_per_document": draw(st.none() | st.integers(1, 9)),
    }
    return lengths, docs, config


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000), epoch=st.integers(0, 5))
def test_a_stretch_is_consecutive_rows_of_one_chosen_document_and_then_repeats_its_last(corpus: tuple, seed: int, epoch: int) -> None:
    lengths, docs, config = corpus
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for batch in sampler(lengths, docs, seed, **config).epoch(epoch):
        assert batch.rows.shape == (len(batch.docs), config["length"] + 1)
        for rows, valid, doc in zip(batch.rows, batch.valid, batch.docs, strict=True):
            assert doc in docs
            predictions = int(valid.sum())
            assert 1 <= predictions <= config["length"]
            assert valid[:predictions].all()
            assert rows[: predictions + 1].tolist() == list(range(rows[0], rows[0] + predictions + 1))
            assert starts[doc] <= rows[0] and rows[predictions] < starts[doc + 1]
            assert (rows[predictions:] == rows[predictions]).all()


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000), epoch=st.integers(0, 5))
def test_every_position_is_predicted_exactly_once_an_epoch_when_no_batch_is_incomplete(corpus: tuple, seed: int, epoch: int) -> None:
    lengths, docs, config = corpus
    starts = np.concatenate([[0], np.cumsum(lengths)])
    found = predicted(sampler(lengths, docs, seed, **config | {"stretches": 1}).epoch(epoch))
    assert found == Counter(row for doc in docs for row in range(starts[doc] + 1, starts[doc + 1]))


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000), epoch=st.integers(0, 5))
def test_no_position_is_predicted_twice_and_only_an_incomplete_batch_is_left_out(corpus: tuple, seed: int, epoch: int) -> None:
    lengths, docs, config = corpus
    made = sampler(lengths, docs, seed, **config)
    batches = list(made.epoch(epoch))
    found = predicted(batches)
    assert max(found.values()) == 1
    every = list(sampler(lengths, docs, seed, **config | {"stretches": 1}).epoch(epoch))
    drawn = sum(len(batch.docs) for batch in batches)
    assert len(batches) == made.steps(epoch) == max(1, len(every) // config["stretches"])
    assert drawn == min(len(every), len(batches) * config["stretches"])
    assert found == predicted(every[:drawn])


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000), epoch=st.integers(0, 5))
def test_a_document_that_fits_is_never_cut(corpus: tuple, seed: int, epoch: int) -> None:
    lengths, docs, config = corpus
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for batch in sampler(lengths, docs, seed, **config).epoch(epoch):
        for rows, valid, doc in zip(batch.rows, batch.valid, batch.docs, strict=True):
            if lengths[doc] <= config["length"] + 1:
                assert (rows[0], int(valid.sum())) == (starts[doc], lengths[doc] - 1)


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000), epoch=st.integers(0, 5))
def test_hard_negatives_are_of_the_same_document_and_outside_the_stretch(corpus: tuple, seed: int, epoch: int) -> None:
    lengths, docs, config = corpus
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for batch in sampler(lengths, docs, seed, **config).epoch(epoch):
        assert batch.negatives.shape == (len(batch.docs), config["hard_negatives"])
        for rows, negatives, doc in zip(batch.rows, batch.negatives, batch.docs, strict=True):
            if len(set(rows.tolist())) == lengths[doc]:
                assert (negatives == -1).all()
            else:
                assert ((negatives >= starts[doc]) & (negatives < starts[doc + 1])).all()
                assert not set(negatives.tolist()) & set(rows.tolist())


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000))
def test_anchors_are_valid_positions_capped_per_document_over_the_whole_batch(corpus: tuple, seed: int) -> None:
    lengths, docs, config = corpus
    cap = config["anchors_per_document"]
    for batch in sampler(lengths, docs, seed, **config).epoch(0):
        assert not (batch.anchors & ~batch.valid).any()
        for doc in set(batch.docs.tolist()):
            own = batch.docs == doc
            valid = int(batch.valid[own].sum())
            assert batch.anchors[own].sum() == (valid if cap is None else min(cap, valid))


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000), epoch=st.integers(0, 3), data=st.data())
def test_an_epoch_resumed_at_a_step_yields_exactly_the_remaining_batches(corpus: tuple, seed: int, epoch: int, data: st.DataObject) -> None:
    lengths, docs, config = corpus
    whole = list(sampler(lengths, docs, seed, **config).epoch(epoch))
    made = sampler(lengths, docs, seed, **config)
    assert len(whole) == made.steps(epoch)
    first = data.draw(st.integers(0, len(whole)))
    list(islice(made.epoch(epoch + 1), 1))  # what was drawn before must not matter
    rest = list(made.epoch(epoch, first))
    assert len(rest) == len(whole) - first
    assert all(same(a, b) for a, b in zip(rest, whole[first:], strict=True))


def test_another_epoch_or_seed_gives_other_batches() -> None:
    config = {"stretches": 4, "length": 8, "anchors_per_document": 5}
    first = list(sampler([40] * 10, **config).epoch(0))
    assert all(same(a, b) for a, b in zip(first, sampler([40] * 10, **config).epoch(0), strict=True))
    for other in (sampler([40] * 10, **config).epoch(1), sampler([40] * 10, seed=1, **config).epoch(0)):
        assert not any(same(a, b) for a, b in zip(first, other, strict=True))


def test_another_seed_cuts_documents_elsewhere_and_orders_them_anew() -> None:
    (cuts, order), (other_cuts, other_order) = (
        (
            {int(rows[0]) for batch in made.epoch(0) for rows in batch.rows},
            [int(doc) for batch in made.epoch(0) for doc in batch.docs],
        )
        for made in (sampler([41] * 20, seed=seed, stretches=1, length=8) for seed in (0, 1))
    )
    assert cuts != other_cuts
    assert order != other_order


def test_another_seed_draws_other_anchors_and_negatives_of_the_same_stretches() -> None:
    config = {"stretches": 1, "length": 8, "anchors_per_document": 1}
    anchors = {int(np.flatnonzero(next(sampler([9], seed=seed, **config).epoch(0)).anchors[0])[0]) for seed in range(60)}
    assert anchors == set(range(8))
    negatives: dict[tuple[int, ...], set[int]] = {}
    for seed in range(200):
        for batch in sampler([30], seed=seed, stretches=1, length=8, hard_negatives=1).epoch(0):
            negatives.setdefault(tuple(batch.rows[0].tolist()), set()).add(int(batch.negatives[0, 0]))
    # Each stretch comes up about 25 times, at one of five steps of the epoch, and has 21 to 28 rows outside of it.
    assert min(len(found) for found in negatives.values()) > 5


def test_a_corpus_smaller_than_a_batch_gives_one_smaller_batch() -> None:
    (batch,) = sampler([5, 5, 5], stretches=16, length=8).epoch(0)
    assert sorted(batch.docs.tolist()) == [0, 1, 2]


def test_documents_of_one_chunk_are_never_drawn() -> None:
    visited = {int(doc) for batch in sampler([1, 9, 1, 9], stretches=1, length=8).epoch(0) for doc in batch.docs}
    assert visited == {1, 3}


def test_cuts_move_from_epoch_to_epoch_and_fall_everywhere() -> None:
    made = sampler([41], stretches=1, length=8)
    cuts = [frozenset(int(batch.rows[0, 0]) for batch in made.epoch(epoch)) - {0} for epoch in range(120)]
    phases = Counter(min(found) % 8 for found in cuts)
    assert all(len({cut % 8 for cut in found}) == 1 for found in cuts), "the cuts of an epoch are a stretch apart"
    assert set(phases) == set(range(8)) and max(phases.values()) < 30
    assert sum(a != b for a, b in pairwise(cuts)) > 90
    assert set().union(*cuts) == set(range(1, 40))


def test_documents_are_cut_at_phases_of_their_own() -> None:
    made = sampler([41] * 30, stretches=1, length=8)
    phases = {int(batch.docs[0]): int(batch.rows[0, 0] - 41 * batch.docs[0]) % 8 for batch in made.epoch(0) if batch.rows[0, 0] % 41}
    assert len(phases) == 30 and set(phases.values()) == set(range(8))


def test_what_an_incomplete_batch_leaves_out_differs_from_epoch_to_epoch() -> None:
    made = sampler([9] * 30, stretches=4, length=8)  # 30 stretches, 28 drawn
    left_out = [frozenset(range(30)) - {int(doc) for batch in made.epoch(epoch) for doc in batch.docs} for epoch in range(80)]
    assert all(len(found) == 2 for found in left_out)
    assert set().union(*left_out) == set(range(30))


def test_hard_negatives_come_from_before_and_after_the_stretch_alike() -> None:
    made = sampler([30], stretches=1, length=8, hard_negatives=6)
    outside = Counter[str]()
    for epoch in range(60):
        for batch in made.epoch(epoch):
            first, last = batch.rows[0, 0], batch.rows[0, -1]
            assert first == 0 or last == 29 or len(set(batch.negatives[0].tolist())) > 1
            outside.update("before" if row < first else "after" for row in batch.negatives[0].tolist())
    assert 0.4 < outside["before"] / outside.total() < 0.6


def test_the_cap_keeps_random_positions() -> None:
    made = sampler([9] * 40, stretches=1, length=8, anchors_per_document=1)
    positions = Counter(int(np.flatnonzero(batch.anchors[0])[0]) for batch in made.epoch(0))
    assert len(positions) == 8


def test_what_is_drawn_within_a_batch_is_drawn_anew_each_epoch() -> None:
    made = sampler([9], stretches=1, length=8, anchors_per_document=1)  # one and the same stretch
    positions = [int(np.flatnonzero(batch.anchors[0])[0]) for epoch in range(60) for batch in made.epoch(epoch)]
    assert set(positions) == set(range(8))


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_is_diverse_because_visits_of_a_document_are_spread_over_the_epoch(seed: int) -> None:
    made = sampler([401] * 5, seed=seed, stretches=10, length=8)
    batches = [Counter(batch.docs.tolist()) for batch in made.epoch(0)]
    assert len(batches) == 25
    # Two of each document on average; a plain shuffle puts five or more of one into some batch.
    assert max(max(batch.values()) for batch in batches) <= 4
    assert all(len(batch) == 5 for batch in batches)


@pytest.mark.parametrize("seed", range(5))
def test_no_batch_holds_most_of_a_long_documents_visits(seed: int) -> None:
    made = sampler([401] + [9] * 50, seed=seed, stretches=10, length=8)
    of_long = [int((batch.docs == 0).sum()) for batch in made.epoch(0)]
    assert sum(of_long) >= 45
    assert max(of_long) <= 9
    assert sum(count > 0 for count in of_long) == 10


@pytest.mark.parametrize("seed", range(3))
def test_the_beginning_of_a_document_comes_at_any_time_of_the_epoch(seed: int) -> None:
    made = sampler([81] * 40, seed=seed, stretches=1, length=8)
    batches = list(made.epoch(0))
    when = [step / len(batches) for step, batch in enumerate(batches) if batch.rows[0, 0] == 81 * batch.docs[0]]
    assert len(when) == 40
    assert min(when) < 0.2 and max(when) > 0.8
