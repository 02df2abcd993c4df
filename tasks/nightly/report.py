"""Stage `night-report`: one page about the night and all nights so far, and the night's entry in the record."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from prefect import task
from prefect.artifacts import create_markdown_artifact
from rich.console import Console

from lvm.config import GateThresholds
from lvm.gates.result import GateResult, verdict
from lvm.reports.figures.style import save
from lvm.reports.nightly import NightEntry, night_table, trend_figure, trend_table
from lvm.reports.tables.evaluation import model_table
from lvm.reports.tables.gates import gate_table
from lvm.reports.tables.text import arm_table, sample_table
from tasks.gate_log import gate_tag, log_gates
from tasks.nightly.champion import Champion
from tasks.nightly.documents import NightDocuments
from tasks.nightly.evaluate import NightText
from tasks.nightly.record import all_nights, enter_night
from tasks.report import SAMPLES
from tasks.tracking.runs import log_metrics
from tasks.validate import evaluation_metrics, interval_metrics


@task
def write_night(
    champion: Champion,
    documents: NightDocuments,
    summary: dict[str, Any],
    text: NightText,
    night: str,
    limits: GateThresholds,
    run_id: str,
    figures: Path,
) -> list[GateResult]:
    """Report the night to MLflow, Prefect and the terminal, enter it into the record, and return its gates."""
    gates = [GateResult(**gate) for gate in summary["gates"] + text.gates]
    metrics = night_metrics(summary)
    this = NightEntry(night, gate_tag(gates), champion.version, metrics)
    nights = sorted([*(n for n in all_nights(run_id) if n.date != night), this], key=lambda n: n.date)

    breached = ", ".join(gate.name for gate in gates if not gate.passed)
    conclusion = f"{night}: BREACH of {breached}" if breached else f"{night}: gates {verdict(gates)}"
    who = f"Champion: {champion.arch}, version {champion.version} ({champion.path.name})"
    rows = gate_table(gates, f"Gates, {night}")
    compared = night_table(summary, champion.recorded)
    words = f"Text of {text.text.arch}: {text.text.reason}." if text.text.arch else f"{text.text.reason}."
    tables = [rows, compared, model_table(summary["night"], champion.arch), trend_table(nights)]
    tables += [arm_table(text.text.summary), sample_table(text.text.summary, SAMPLES)] if text.text.summary else []
    lines = [f"{conclusion}.", f"{who}.", f"{documents.origin}."]
    page = "\n\n".join(["# validate-nightly", *lines, *(table.markdown() for table in tables), words])

    client = MlflowClient()
    log_metrics(run_id, metrics)
    client.log_dict(run_id, summary, "evaluation/night.json")
    log_gates(run_id, gates, "night")
    client.log_text(run_id, page, "report.md")
    client.log_artifact(run_id, str(save(trend_figure(nights, limits), figures / "trend.png")), "figures")
    create_markdown_artifact(page, key="nightly-report", description=conclusion)
    enter_night(run_id, night, {"lvm.gate": gate_tag(gates), "lvm.version": champion.version})

    console = Console()
    console.print(rows.rich(), compared.rich())
    console.print("\n".join([*lines, words, "Next: make ui"]), markup=False, soft_wrap=True)
    return gates


def night_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """The summary as MLflow metrics: `night/...` and `own/...` as of any evaluation, `drift/...` with interval bounds and p-values."""
    metrics = evaluation_metrics("night", summary["night"]) | evaluation_metrics("own", summary["own"])
    for metric, found in summary["skill_drift"].items():
        metrics |= {**interval_metrics(f"drift/skill_{metric}", found["difference"]), f"drift/skill_{metric}_p": found["p"]}
    if found := summary["embedding_drift"]:
        metrics |= {
            **interval_metrics("drift/embedding", found["share"]),
            "drift/embedding_p": found["p"],
            "drift/embedding_chance": found["chance"],
        }
    return metrics
