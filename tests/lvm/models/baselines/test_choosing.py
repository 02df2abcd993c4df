"""Choosing by walking uphill."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lvm.models.baselines.choosing import climb


@given(st.integers(1, 20), st.data())
def test_the_top_is_found_from_anywhere_and_nothing_is_scored_twice(size: int, data: st.DataObject) -> None:
    values = [float(place) for place in range(size)]
    top, start = (data.draw(st.sampled_from(values)) for _ in range(2))
    seen: Counter[float] = Counter()

    def score(value: float) -> float:
        seen[value] += 1
        return -abs(value - top)

    assert climb(values, score, start) == top
    assert max(seen.values()) == 1
    assert len(seen) <= abs(top - start) + 3, "only the way to the top and its neighbours are scored"


def test_where_all_values_are_as_good_the_start_stays() -> None:
    assert climb([0.0, 1.0, 2.0], lambda _: 0.5, 1.0) == 1.0
