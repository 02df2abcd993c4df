"""Batches are diverse, stay inside documents, and follow from (seed, epoch, step) alone."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import SamplerConfig
from lvm.sampling import Batch, DiverseBatchSampler

COMMON = settings(max_examples=60, deadline=None)


def sampler(lengths: list[int], docs: list[int] | None = None, seed: int = 0, **config: int | None) -> DiverseBatchSampler:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    chosen = np.arange(len(lengths)) if docs is None else np.array(docs)
    return DiverseBatchSampler(starts, chosen, SamplerConfig(**config), seed)  # type: ignore[arg-type]


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
def test_a_stretch_is_consecutive_rows_of_one_chosen_document(corpus: tuple, seed: int, epoch: int) -> None:
    lengths, docs, config = corpus
    made = sampler(lengths, docs, seed, **config)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for batch in made.epoch(epoch):
        for rows, valid, doc in zip(batch.rows, batch.valid, batch.docs, strict=True):
            assert doc in docs
            assert starts[doc] <= rows[0]
            assert valid.sum() == min(config["length"], lengths[doc] - 1)
            for position, is_valid in enumerate(valid):
                if is_valid:
                    assert rows[position + 1] == rows[position] + 1 < starts[doc + 1]
                else:
                    assert rows[position + 1] == starts[doc + 1] - 1


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000))
def test_hard_negatives_are_of_the_same_document_and_outside_the_stretch(corpus: tuple, seed: int) -> None:
    lengths, docs, config = corpus
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for batch in sampler(lengths, docs, seed, **config).epoch(0):
        assert batch.negatives.shape == (len(batch.docs), config["hard_negatives"])
        for rows, negatives, doc in zip(batch.rows, batch.negatives, batch.docs, strict=True):
            if lengths[doc] <= config["length"] + 1:
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
    assert len(whole) == made.steps_per_epoch
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


@COMMON
@given(corpus=corpora(), seed=st.integers(0, 1000))
def test_documents_are_visited_in_proportion_to_their_length(corpus: tuple, seed: int) -> None:
    lengths, docs, config = corpus
    planned = Counter({doc: -(-(lengths[doc] - 1) // config["length"]) for doc in docs})
    visits = Counter(int(doc) for batch in sampler(lengths, docs, seed, **config).epoch(0) for doc in batch.docs)
    assert not visits - planned
    left_over = planned.total() - visits.total()
    assert left_over < config["stretches"]


def test_a_corpus_smaller_than_a_batch_gives_one_smaller_batch() -> None:
    (batch,) = sampler([5, 5, 5], stretches=16, length=8).epoch(0)
    assert sorted(batch.docs.tolist()) == [0, 1, 2]


def test_documents_of_one_chunk_are_never_drawn() -> None:
    visited = {int(doc) for batch in sampler([1, 9, 1, 9], stretches=1, length=8).epoch(0) for doc in batch.docs}
    assert visited == {1, 3}


def test_crops_begin_anywhere_and_reach_the_last_chunk() -> None:
    made = sampler([30], stretches=1, length=8)
    crops = [batch.rows[0] for epoch in range(80) for batch in made.epoch(epoch)]
    begins = Counter(int(rows[0]) for rows in crops)
    assert set(begins) == set(range(22))  # every place where a whole stretch fits, the last one included
    assert max(begins.values()) < len(crops) / 5
    assert max(int(rows[-1]) for rows in crops) == 29


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


@pytest.mark.parametrize("seed", range(5))
def test_visits_of_a_document_are_spread_over_the_epoch(seed: int) -> None:
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
