"""Copies a trainer's metrics.jsonl to its MLflow run."""

import json
import logging
from pathlib import Path

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from lvm.training.metrics_log import event_order
from tasks.tracking.host_metrics import HostMetrics
from tasks.tracking.runs import log_points


class MetricsRelay:
    """Sends new lines of a trainer's metrics.jsonl to a run each time it is asked, together with the load of the `host`.

    The file is the record and MLflow a copy. What has been sent is remembered by step, not by offset, since a trainer
    that resumes rewrites the end of its file.
    """

    def __init__(self, file: Path, run_id: str, host: HostMetrics | None = None) -> None:
        self._file, self._run_id, self._host, self._sent, self._waiting = file, run_id, host, -1, False

    def relay_or_wait(self) -> bool:
        """Call `relay`; returns False when the store does not accept it. The lines stay in the file and are sent by a later call."""
        try:
            self.relay()
        except MlflowException as error:
            if not self._waiting:
                logging.getLogger(__name__).warning("MLflow does not accept metrics now; they wait in %s: %s", self._file, error)
            self._waiting = True
            return False
        self._waiting = False
        return True

    def relay(self) -> None:
        """Send the events of steps that have not been sent; `MlflowException` when the store does not accept them."""
        if not self._file.exists():
            return
        points, last = [], self._sent
        for line in self._file.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # the trainer is still writing this line
                break
            place = event_order(event)
            if place <= self._sent:
                continue
            last = max(last, place)
            at = int(event["timing"].pop("time") * 1000)
            values = {**event["metrics"], **event["timing"]}
            points += [Metric(name, value, at, event["step"]) for name, value in values.items()]
        log_points(self._run_id, points + (self._host.points() if self._host else []))
        self._sent = last
