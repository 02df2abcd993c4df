"""The host's metrics: there from the first moment, averaged afterwards, and no thread that outlives a run."""

import threading

import pytest

import tasks.tracking.host_metrics
from tasks.tracking.host_metrics import HostMetrics

NAMES = {"cpu_utilization_percentage", "system_memory_usage_percentage", "disk_usage_percentage", "network_receive_megabytes"}


def test_first_call_gives_every_quantity_under_mlflow_s_name():
    points = {point.key: point for point in HostMetrics().points()}
    assert {f"system/{name}" for name in NAMES} <= set(points)
    assert {point.step for point in points.values()} == {0}
    for name in ("cpu_utilization", "system_memory_usage", "disk_usage"):
        assert 0 <= points[f"system/{name}_percentage"].value <= 100
    assert points["system/system_memory_usage_megabytes"].value > 0


def test_samples_between_two_points_are_averaged_into_the_next(monkeypatch):
    used = iter([0.0, 10.0, 20.0, 60.0])  # the first is thrown away: nothing was measured before it
    now = iter([100.0, 100.0, 105.0, 111.0, 111.0])
    monkeypatch.setattr("psutil.cpu_percent", lambda: next(used))
    monkeypatch.setattr(tasks.tracking.host_metrics.time, "monotonic", lambda: next(now))
    host = HostMetrics()
    found = [{point.key: (point.step, point.value) for point in host.points()} for _ in range(3)]
    assert [points.get("system/cpu_utilization_percentage") for points in found] == [(0, 10.0), None, (1, 40.0)]
    assert found[1] == {}


def test_no_thread_is_started():
    before = set(threading.enumerate())
    host = HostMetrics()
    host.points()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("missing", [ImportError("no nvidia-ml-py"), RuntimeError("no GPU")])
def test_host_without_a_gpu_has_the_rest(missing, monkeypatch):
    def none() -> None:
        raise missing

    monkeypatch.setattr(tasks.tracking.host_metrics, "GPUMonitor", none)
    assert {f"system/{name}" for name in NAMES} <= {point.key for point in HostMetrics().points()}
