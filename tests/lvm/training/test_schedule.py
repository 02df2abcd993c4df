"""The learning rate warms up to its peak, never exceeds it, and then falls to nearly zero."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.training.schedule import warmup_cosine


@settings(max_examples=100, deadline=None)
@given(total=st.integers(1, 400), warmup=st.floats(0, 0.99), peak=st.floats(1e-6, 1))
def test_rate_rises_to_its_peak_falls_and_never_exceeds_it(total: int, warmup: float, peak: float) -> None:
    rates = [warmup_cosine(step, total, warmup, peak) for step in range(total)]
    assert min(rates) > 0 and max(rates) <= peak
    top = rates.index(max(rates))
    assert top <= math.ceil(warmup * total)
    assert all(a <= b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    if total * (1 - warmup) > 20:
        assert max(rates) > 0.95 * peak and rates[-1] < 0.02 * peak
    if total * (1 - warmup) >= 1:
        assert warmup_cosine(total, total, warmup, peak) < 1e-9


def test_a_known_schedule() -> None:
    rates = [warmup_cosine(step, 100, 0.1, 2.0) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[55] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 89 / 90))
