"""A round's tokens come back padded, and every batch has one size and nearly one length."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvm.decoding.inverter.model import PAD
from lvm.decoding.inverter.pool import Ragged, batches, round_size, round_up
from lvm.errors import InputError
from tests.support.tiny_decoder import tiny

lengths_of_rows = st.lists(st.integers(1, 96), min_size=1, max_size=200).map(np.array)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Ragged


@given(st.lists(st.lists(st.integers(2, 65_534), min_size=1, max_size=12), min_size=1, max_size=12), st.data())
def test_ragged_gives_every_row_back_padded(rows: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged([np.array(row, np.uint16) for row in rows], torch.device("cpu"))
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    longest = data.draw(st.integers(max(len(rows[i]) for i in chosen), 20))
    taken = ragged.take(torch.tensor(chosen), longest)
    assert taken.dtype == torch.int64
    assert taken.tolist() == [rows[i] + [PAD] * (longest - len(rows[i])) for i in chosen]


def test_ragged_cuts_rows_at_the_length_asked_for() -> None:
    ragged = Ragged([np.array([2, 3, 4], np.uint16), np.array([5], np.uint16)], torch.device("cpu"))
    assert ragged.take(torch.tensor([0, 1]), 2).tolist() == [[2, 3], [5, PAD]]


# batches


@given(lengths_of_rows, st.integers(1, 40))
def test_every_row_comes_at_most_once_in_batches_of_exactly_the_size(lengths: np.ndarray, size: int) -> None:
    found = list(batches(lengths, size, generator()))
    assert [len(rows) for rows in found] == [size] * (len(lengths) // size)
    every = np.concatenate(found) if found else np.array([], int)
    assert len(set(every.tolist())) == len(every) and set(every.tolist()) <= set(range(len(lengths)))


@given(lengths_of_rows)
def test_lengths_in_a_batch_are_near_each_other(lengths: np.ndarray) -> None:
    ranges = sorted((lengths[rows].min(), lengths[rows].max()) for rows in batches(lengths, 8, generator()))
    assert all(high - later <= 4 for (_, high), (later, _) in pairwise(ranges)), "they overlap by the blur alone"


def test_the_remainder_that_is_left_out_is_a_random_one() -> None:
    lengths = np.arange(100)
    left = [set(range(100)) - set(np.concatenate(list(batches(lengths, 16, generator(seed)))).tolist()) for seed in range(60)]
    assert all(len(rows) == 4 for rows in left)
    assert 35 < np.mean([row for rows in left for row in rows]) < 65, "not the longest each time"


def test_batches_come_in_random_order_and_with_other_company_in_the_next_pass() -> None:
    lengths = np.repeat(np.arange(10, 40), 8)
    both = generator()
    first, second = (list(batches(lengths, 16, both)) for _ in range(2))
    means = [lengths[rows].mean() for rows in first]
    assert means != sorted(means)
    assert not {frozenset(rows.tolist()) for rows in first} & {frozenset(rows.tolist()) for rows in second}


# round_up


@given(st.integers(1, 10_000), st.integers(1, 128))
def test_round_up_is_the_next_multiple(length: int, step: int) -> None:
    found = round_up(length, step)
    assert found % step == 0 and 0 <= found - length < step


# round_size


@pytest.mark.parametrize(("share", "corrected"), [(0.0, 0), (0.25, 16), (0.5, 32), (1.0, 64)])
def test_the_share_of_corrections_is_counted_in_whole_batches(share: float, corrected: int) -> None:
    size = round_size(tiny("batch=8", f"corrections={share}"), 1)
    assert (size.batch, size.texts, size.steps, size.corrected) == (8, 64, 8, corrected)


def test_processes_divide_the_texts_and_the_batch() -> None:
    size = round_size(tiny(), 2)
    assert (size.batch, size.texts, size.steps, size.corrected) == (8, 32, 4, 16)


@pytest.mark.parametrize(
    ("setting", "world", "message"),
    [
        ("batch=65", 1, "field 'decoder.texts' is 64: give at least decoder.batch, which is 65"),
        ("batch=64", 1, r"field 'decoder.corrections' is 0\.5 of 1 batches in a round, which is none: raise decoder.texts"),
        ("batch=16", 3, "field 'decoder.batch' is 16: give a multiple of 3, the number of processes"),
    ],
)
def test_a_round_that_cannot_be_divided_is_refused(setting: str, world: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        round_size(tiny(setting), world)
