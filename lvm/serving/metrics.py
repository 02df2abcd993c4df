"""Metrics of the server for Prometheus: requests by outcome, latency, batches, queue, reloads."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

LATENCY_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16)
"""Seconds."""

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Contexts in a batch."""


class ServingMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, queue_length: Callable[[], int]) -> None:
        """`queue_length` gives the number of requests that wait for a batch."""
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("lvm_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.failures = Counter("lvm_failures", "Requests refused or failed, by reason.", ["reason"], registry=registry)
        self.latency = Histogram("lvm_request_seconds", "Time to the response.", ["path"], buckets=LATENCY_BUCKETS, registry=registry)
        self.batch_size = Histogram("lvm_batch_contexts", "Contexts computed together.", buckets=BATCH_BUCKETS, registry=registry)
        self.out_of_distribution = Counter("lvm_unfamiliar_contexts", "Contexts unlike the training embeddings.", registry=registry)
        self.reloads = Counter("lvm_reloads", "Newer models loaded, or refused while the old one stays.", ["outcome"], registry=registry)
        self.loaded_models = Gauge("lvm_model", "1 for each model that is served.", ["model"], registry=registry)
        Gauge("lvm_queue", "Requests waiting for a batch.", registry=registry).set_function(queue_length)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)
