"""Results of gates, to the log and to the MLflow run that they concern."""

import logging
from collections.abc import Iterable, Sequence

from mlflow import MlflowClient
from prefect import get_run_logger

from lvm.gates.result import GateResult, worst
from tasks.tracking.runs import log_metrics

TAGS = {"ok": "pass", "warn": "warn", "fail": "fail"}
"""Values of the tag `lvm.gate`, by the worst severity of a run's gates."""


LEVELS = {"ok": logging.INFO, "warn": logging.WARNING, "fail": logging.ERROR}


def gate_tag(gates: Iterable[GateResult]) -> str:
    """The value of the tag `lvm.gate`: pass, warn or fail."""
    return TAGS[worst(gates)]


def log_gates(run_id: str, gates: Sequence[GateResult], name: str, step: int = 0) -> None:
    """Log a line a gate, and to the run `gates/<name>.json` with all results and the metric `gate/<gate>` of each."""
    for gate in gates:
        get_run_logger().log(LEVELS[gate.severity], "%s %s: %s", gate.name, gate.severity, gate.sentence)
    MlflowClient().log_dict(run_id, {"gates": [gate.as_json() for gate in gates]}, f"gates/{name}.json")
    log_metrics(run_id, {f"gate/{gate.name}": gate.value for gate in gates}, step=step)
