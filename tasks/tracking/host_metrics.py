"""Load of the host during a training, by MLflow's own collectors and under its names, but without its thread."""

import time
from contextlib import suppress

from mlflow.entities import Metric
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

SECONDS = 10.0
"""Interval between two points; the samples within it are averaged."""


class HostMetrics:
    """CPU, memory, disk and network of this host, and its NVIDIA GPUs where the package nvidia-ml-py is installed.

    MLflow samples in a thread, which ends for good when a single write fails. Here, whoever watches the trainer
    calls `points` regularly.
    """

    def __init__(self) -> None:
        self._collectors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no such GPU
            self._collectors.append(GPUMonitor())
        self._step, self._due = 0, 0.0
        self._collectors[0].collect_metrics()  # CPU use is counted between two samples, so the first one is meaningless
        self._collectors[0].clear_metrics()

    def points(self) -> list[Metric]:
        """Take a sample; returns `system/...` points if they are due (the first time they are), else an empty list."""
        found: dict[str, float] = {}
        for collector in self._collectors:
            collector.collect_metrics()
        if time.monotonic() < self._due:
            return []
        for collector in self._collectors:
            found |= collector.aggregate_metrics()
            collector.clear_metrics()
        step, at = self._step, int(time.time() * 1000)
        self._step, self._due = step + 1, time.monotonic() + SECONDS
        return [Metric(f"system/{name}", float(value), at, step) for name, value in found.items()]
