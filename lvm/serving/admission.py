"""Admission control: how many requests may be in flight at once.

Predictions and text requests are counted separately, so that slow text requests never delay predictions. A request that is
not admitted is answered with 429 and a Retry-After header.

Predictions have two limits: up to `burst` in flight in a burst, and only `sustained` under sustained load. The time that a
request spends in the server grows with the number in flight (Little's law), so under sustained load few are admitted and
answered soon, and the rest are told to retry. A token bucket tells a burst from sustained load.

Two places ask for admission: `http_protocol` for nearly every request, before uvicorn has spent time on it, and `middleware`
for those that the protocol could not decide on.
"""

import logging
import time
from collections import Counter

from lvm.config import ServingConfig
from lvm.serving.metrics import ServingMetrics
from lvm.serving.responses import error_messages

log = logging.getLogger("lvm.serving")

PREDICT, TEXT = "predict", "text"

GROUPS = {"/predict": PREDICT, "/predict_text": TEXT, "/encode": TEXT, "/decode": TEXT}
"""The group of each path that is subject to admission control."""

RETRY_AFTER_SECONDS = {PREDICT: 1, TEXT: 5}

LOG_INTERVAL_SECONDS = 1.0
"""Rejections are logged at most this often: under overload a line for each would cost more than the rejection."""

REJECTIONS = {
    group: error_messages(429, "full", "too many requests at once: try again", {"retry-after": str(seconds)})
    for group, seconds in RETRY_AFTER_SECONDS.items()
}
"""The response to a request that is not admitted, by group."""

ADMITTED = "admitted"
"""Key in a request's ASGI state: it has been admitted already."""


class TokenBucket:
    """A token bucket: `size` tokens, refilled within a second."""

    def __init__(self, size: int) -> None:
        self._size, self._tokens, self._refilled_at = size, float(size), time.monotonic()

    def take(self) -> bool:
        """Take a token; False when there is none."""
        now = time.monotonic()
        self._tokens = min(self._size, self._tokens + (now - self._refilled_at) * self._size)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class AdmissionControl:
    """Counts the requests in flight by group and decides whether one more is admitted.

    Below the sustained limit every request is admitted; between the sustained limit and the burst limit each takes a token.
    """

    def __init__(self, config: ServingConfig, metrics: ServingMetrics) -> None:
        self._burst = {PREDICT: config.burst, TEXT: config.text}
        self._sustained = {PREDICT: min(config.sustained, config.burst), TEXT: config.text}
        self._tokens = {group: TokenBucket(self._burst[group] - self._sustained[group]) for group in self._burst}
        self.in_flight: Counter[str] = Counter()
        self._counters = {path: (metrics.requests.labels(path, "429"), metrics.failures.labels("full")) for path in GROUPS}
        self._unlogged, self._logged_at = 0, -LOG_INTERVAL_SECONDS

    def try_admit(self, group: str) -> bool:
        """Admit a request, which `release` must follow once it is done; False when it is to be rejected."""
        in_flight = self.in_flight[group]
        if in_flight >= self._burst[group] or (in_flight >= self._sustained[group] and not self._tokens[group].take()):
            return False
        self.in_flight[group] = in_flight + 1
        return True

    def release(self, group: str) -> None:
        """An admitted request is done."""
        self.in_flight[group] -= 1

    def record_rejection(self, path: str) -> None:
        """Count a rejected request, and log the rejections now and then."""
        for counter in self._counters[path]:
            counter.inc()
        self._unlogged += 1
        if (now := time.perf_counter()) - self._logged_at >= LOG_INTERVAL_SECONDS:
            log.warning("requests rejected", extra={"path": path, "status": 429, "requests": self._unlogged})
            self._unlogged, self._logged_at = 0, now
