"""Where MLflow's UI shows the models of a flow beside each other.

The addresses are those that the UI itself shows for these views. Without a host they are links within MLflow's own pages.
"""

import json
import os
from collections.abc import Sequence
from urllib.parse import quote

UI = "LVM_MLFLOW_UI"
"""Variable with the address of MLflow's UI, for flows that write to a database and not to a server; `make up` sets it."""


USUAL = "http://127.0.0.1:5000"
"""Where `make ui` serves it."""


def ui_address() -> str:
    """Address of MLflow's UI, as far as a flow can know it: its server, what `LVM_MLFLOW_UI` names, or the usual one."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    return (server if server.startswith(("http://", "https://")) else os.environ.get(UI, USUAL)).rstrip("/") + "/"


def table_address(experiment: str, runs: Sequence[str]) -> str:
    """The page with parameters and metrics of the runs side by side."""
    return f"#/compare-runs?runs={_json(list(runs))}&experiments={_json([experiment])}"


def charts_address(experiment: str, parent: str) -> str:
    """The page with the curves of the runs below `parent`, a chart a metric, a colour a run, the best run first."""
    below = quote(f"tags.`mlflow.parentRunId` = '{parent}'", safe="")
    # Ordered by anything but time: only then does the UI list children without the parent above them.
    order = quote("metrics.`val/skill_cosine`", safe="")
    return f"#/experiments/{experiment}/runs?compareRunsMode=CHART&searchFilter={below}&orderByKey={order}&orderByAsc=false"


def _json(values: Sequence[str]) -> str:
    return quote(json.dumps(values, separators=(",", ":")), safe="")
