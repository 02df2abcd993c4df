"""Admission control admits a burst up to its limit, fewer under sustained load, and never more than the limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvm.config import ServingConfig
from lvm.serving import admission as admission_module
from lvm.serving.admission import PREDICT, TEXT, AdmissionControl, TokenBucket
from lvm.serving.metrics import ServingMetrics

BURST, SUSTAINED, TEXTS = 32, 5, 8


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture()
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    replaced = Clock()
    monkeypatch.setattr(admission_module, "time", replaced)
    return replaced


@pytest.fixture()
def admission(clock: Clock) -> AdmissionControl:
    return AdmissionControl(ServingConfig(burst=BURST, sustained=SUSTAINED, text=TEXTS), ServingMetrics(lambda: 0))


def admitted(admission: AdmissionControl, group: str, requests: int) -> int:
    return sum(admission.try_admit(group) for _ in range(requests))


def release(admission: AdmissionControl, group: str, requests: int) -> None:
    for _ in range(requests):
        admission.release(group)


def test_sustained_load_is_limited_once_the_burst_is_spent(admission):
    assert admitted(admission, PREDICT, 50) == BURST == admission.in_flight[PREDICT]
    release(admission, PREDICT, BURST)
    assert admitted(admission, PREDICT, 50) == SUSTAINED
    release(admission, PREDICT, 1)
    assert admitted(admission, PREDICT, 50) == 1


def test_burst_is_available_again_after_a_second(admission, clock):
    for seconds, expected in ((0.0, BURST), (0.5, SUSTAINED + 13), (1.0, BURST)):
        clock.now += seconds
        assert admitted(admission, PREDICT, 50) == expected
        release(admission, PREDICT, expected)


def test_text_requests_have_one_limit_of_their_own(admission):
    assert admitted(admission, PREDICT, 50) == BURST
    for _ in range(3):
        assert admitted(admission, TEXT, 20) == TEXTS
        release(admission, TEXT, TEXTS)


@pytest.mark.parametrize("burst", [1, SUSTAINED])
def test_burst_below_the_sustained_limit_is_the_limit(clock, burst):
    admission = AdmissionControl(ServingConfig(burst=burst, sustained=SUSTAINED), ServingMetrics(lambda: 0))
    assert admitted(admission, PREDICT, 20) == burst


@given(st.integers(0, 40), st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 60)), max_size=30))
def test_no_second_sees_more_than_two_buckets_of_tokens(size, arrivals):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission_module, "time", clock)
        bucket, taken = TokenBucket(size), []
        for wait, wanted in arrivals:
            clock.now += wait
            taken += [clock.now for _ in range(wanted) if bucket.take()]
        assert all(sum(start <= at <= start + 1 for at in taken) <= 2 * size + 1e-6 for start in taken)
