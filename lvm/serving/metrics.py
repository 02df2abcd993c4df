"""What Prometheus reads: requests by outcome, latency, batches, queue, reloads."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16)


ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Measures:
    """Counters of one server."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("lvm_requests", "Requests answered.", ["path", "status"], registry=self.registry)
        self.failures = Counter("lvm_failures", "Requests refused or failed, by reason.", ["reason"], registry=self.registry)
        self.seconds = Histogram("lvm_request_seconds", "Time to the answer.", ["path"], buckets=SECONDS, registry=self.registry)
        self.rows = Histogram("lvm_batch_contexts", "Contexts computed together.", buckets=ROWS, registry=self.registry)
        self.out_of_distribution = Counter("lvm_unfamiliar_contexts", "Contexts unlike the training embeddings.", registry=self.registry)
        self.reloads = Counter(
            "lvm_reloads", "Models taken over, or refused while the old one goes on.", ["outcome"], registry=self.registry
        )
        self.served = Gauge("lvm_model", "The model that answers.", ["model"], registry=self.registry)
        Gauge("lvm_queue", "Requests waiting for a batch.", registry=self.registry).set_function(waiting)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
