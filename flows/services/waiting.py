"""Waiting until a service answers."""

import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException

from flows.services.process import POLL_SECONDS, Service, ServiceFailed, last_words

START_SECONDS = 180.0
"""Time limit for a start. A slow machine takes half a minute."""


def wait(service: Service, answered: Callable[[], bool]) -> None:
    """Wait until the service answers; `ServiceFailed` when it ends or does not answer within `START_SECONDS`."""
    end = time.monotonic() + START_SECONDS
    while service.process is not None and time.monotonic() < end:
        if answered():
            return
        time.sleep(POLL_SECONDS)
    outcome = "ended" if service.process is None else f"did not answer within {START_SECONDS:.0f} s"
    raise ServiceFailed(f"{service.name} {outcome} while it started: {last_words(service.log)} (whole log: {service.log})")


def answers(address: str) -> bool:
    """Whether the health check at `address` returns 200."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the address is on this machine: no proxy
    try:
        with direct.open(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, HTTPException):
        return False
