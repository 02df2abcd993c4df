"""Few may be inside for long, more at once in a burst, and never more than the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvm.serving import admission as rooms_module
from lvm.serving.admission import STEADY, TEXT, VECTORS, Burst, Rooms
from lvm.serving.metrics import Measures


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture()
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rooms_module, "time", found)
    return found


def fresh(vectors: int = 32, text: int = 8) -> Rooms:
    return Rooms({VECTORS: vectors, TEXT: text}, Measures(lambda: 0))


def entered(rooms: Rooms, group: str, times: int) -> int:
    return sum(rooms.enter(group) for _ in range(times))


def test_burst_finds_all_rooms(clock):
    rooms = fresh()
    assert entered(rooms, VECTORS, 50) == 32 == rooms.inside[VECTORS]


def test_flood_finds_few_rooms_once_its_burst_is_spent(clock):
    rooms = fresh()
    entered(rooms, VECTORS, 50)
    for _ in range(32):
        rooms.leave(VECTORS)
    assert entered(rooms, VECTORS, 50) == STEADY[VECTORS]
    rooms.leave(VECTORS)
    assert entered(rooms, VECTORS, 50) == 1


def test_rooms_for_bursts_are_there_again_after_a_second(clock):
    rooms = fresh()
    for seconds, found in ((0.0, 32), (0.5, STEADY[VECTORS] + 13), (1.0, 32)):
        clock.now += seconds
        assert entered(rooms, VECTORS, 50) == found
        for _ in range(found):
            rooms.leave(VECTORS)


def test_texts_have_all_their_rooms_for_long(clock):
    rooms = fresh()
    for _ in range(3):
        assert entered(rooms, TEXT, 20) == 8
        for _ in range(8):
            rooms.leave(TEXT)


@pytest.mark.parametrize("bound", [0, 1, STEADY[VECTORS]])
def test_fewer_rooms_than_for_long_are_all_there_are(clock, bound):
    rooms = fresh(vectors=bound)
    assert entered(rooms, VECTORS, 20) == bound


@given(st.integers(0, 40), st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 60)), max_size=30))
def test_no_second_sees_more_than_two_buckets(size, arrivals):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms_module, "time", clock)
        bucket, taken = Burst(size), []
        for wait, wanted in arrivals:
            clock.now += wait
            taken += [clock.now for _ in range(wanted) if bucket.take()]
        assert all(sum(start <= at <= start + 1 for at in taken) <= 2 * size + 1e-6 for start in taken)
