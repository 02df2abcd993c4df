"""Links to the pages of MLflow's UI that compare the models of a flow.

They are the addresses that the UI itself uses for these views. Without a host they work within MLflow's own pages.
"""

import json
import os
from collections.abc import Sequence
from urllib.parse import quote

UI = "LVM_MLFLOW_UI"
"""Environment variable with the address of MLflow's UI, for flows that log to a database instead of a server; set by `make up`."""

DEFAULT = "http://127.0.0.1:5000"
"""Where `make ui` starts it."""


def ui_address() -> str:
    """Address of MLflow's UI: the tracking server, else `LVM_MLFLOW_UI`, else the default of `make ui`."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    return (server if server.startswith(("http://", "https://")) else os.environ.get(UI, DEFAULT)).rstrip("/") + "/"


def table_address(experiment: str, runs: Sequence[str]) -> str:
    """Link to the table of the runs' parameters and metrics, side by side."""
    return f"#/compare-runs?runs={_json(list(runs))}&experiments={_json([experiment])}"


def charts_address(experiment: str, parent: str) -> str:
    """Link to the curves of the runs below `parent`: a chart for each metric, a colour for each run, the best run first."""
    below = quote(f"tags.`mlflow.parentRunId` = '{parent}'", safe="")
    # Only when ordered by something other than time does the UI list children without their parent.
    order = quote("metrics.`val/skill_cosine`", safe="")
    return f"#/experiments/{experiment}/runs?compareRunsMode=CHART&searchFilter={below}&orderByKey={order}&orderByAsc=false"


def _json(values: Sequence[str]) -> str:
    return quote(json.dumps(values, separators=(",", ":")), safe="")
