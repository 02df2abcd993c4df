import numpy as np
import pytest

from lvm.data import vectors as module
from lvm.data.vectors import unusable_rows


@pytest.mark.parametrize("block", [1, 3, 4, 100])
def test_vectors_that_are_zero_or_not_finite_are_found_in_every_block(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    vectors = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    vectors[0] = 0
    vectors[3, 2] = np.nan
    vectors[4, 0] = -np.inf
    vectors[11, 4] = np.inf
    vectors[7] = [0, 1e-20, 0, 0, 0]  # tiny is not zero
    found = unusable_rows(vectors)
    assert found.tolist() == [0, 3, 4, 11] and found.dtype == np.int64


def test_no_vector_has_no_unusable_row():
    assert unusable_rows(np.empty((0, 5), np.float32)).tolist() == []
