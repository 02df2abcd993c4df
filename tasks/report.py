"""Stage `report`: one page about the flow, for the terminal, Prefect and MLflow."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from prefect import task
from prefect.artifacts import create_markdown_artifact
from rich.console import Console

from lvm.data.dataset import open_dataset
from lvm.evaluation.evaluate import SKILLS
from lvm.evaluation.looks import read_looks
from lvm.reports.tables.evaluation import comparison_table
from lvm.reports.tables.text import arm_table, sample_table
from tasks.decode import DecodedModel
from tasks.promote import Promotion
from tasks.tracking.runs import log_metrics, set_tags
from tasks.tracking.ui_links import charts_address, table_address, ui_address
from tasks.validate import ValidatedModel, interval_metrics
from tasks.workspace import Workspace

SAMPLES = 2
"""Number of windows whose texts are shown."""


@task
def write_report(
    models: list[ValidatedModel], promotion: Promotion, text: DecodedModel, workspace: Workspace, dataset: Path, run_id: str
) -> None:
    """Compare the models on test documents, and report the champion, the reason and the next command."""
    summaries = {m.trained.arch: m.test for m in models}
    winner = promotion.challenger if promotion.promoted else None
    table = comparison_table(summaries, {m.trained.arch: m.verdict for m in models}, winner)
    remarks = [f"- {line}" for m in models for line in m.remarks]
    conclusion = "The champion is unchanged" if workspace.champion.exists() else "There is no champion"
    if winner:
        conclusion = f"Champion: {winner} (version {promotion.version})"
    if promotion.challenger and not winner:
        conclusion += f"; challenger {promotion.challenger}"
    samples = [sample_table(text.summary, SAMPLES)] if text.summary else []
    words = [f"Text of {text.arch}: {text.reason}." if text.arch else f"{text.reason}."]
    tables = [arm_table(text.summary).markdown(), samples[0].markdown()] if text.summary else []
    client, ui = MlflowClient(), ui_address()
    experiment = client.get_run(run_id).info.experiment_id
    charts, numbers = charts_address(experiment, run_id), table_address(experiment, [m.trained.run_id for m in models])
    looks = f"{read_looks(open_dataset(dataset)).sentence}."
    top = [f"{conclusion}: {promotion.reason}.", table.markdown(), looks, *remarks]
    links = f"In MLflow: [their curves]({{0}}{charts}), [their numbers]({{0}}{numbers})."
    page = "\n\n".join(["# retrain-all", *top, links.format(ui), *words, *tables])
    create_markdown_artifact(page, key="comparison", description="The models beside each other")
    client.log_text(run_id, page, "report.md")
    set_tags(run_id, {MLFLOW_RUN_NOTE: "\n\n".join([links.format(""), *top])})
    for model in models:
        for name in (f"skill_{metric}" for metric in SKILLS):
            log_metrics(run_id, interval_metrics(f"{model.trained.arch}/{name}", model.test["metrics"][name]))
    console = Console()
    console.print(table.rich(), *(found.rich() for found in samples))
    # Not folded to the terminal's width, so that a command can be copied.
    console.print("\n".join([*words, f"{conclusion}: {promotion.reason}.", looks, *remarks]), markup=False, soft_wrap=True)
    console.print(f"Curves in MLflow (make ui): {ui}{charts}", f"Numbers: {ui}{numbers}", sep="\n", markup=False, soft_wrap=True)
    if workspace.champion.exists():
        console.print(f"Next: lvm validate {dataset} --model {workspace.champion}", markup=False, soft_wrap=True)
