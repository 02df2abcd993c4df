"""Stage `validate`: every new model beside the baselines, and its gates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mlflow import MlflowClient
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from lvm.config import GateThresholds
from lvm.data.dataset import open_dataset
from lvm.data.manifest import Manifest
from lvm.devices import resolve_device
from lvm.errors import GateRefused, InputError
from lvm.evaluation.evaluate import Evaluation, Reference, evaluate_checkpoint, make_reference
from lvm.evaluation.record import write_record
from lvm.gates.model import model_gates
from lvm.gates.result import GateResult, verdict
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from lvm.reports.figures.evaluation import evaluation_figures
from lvm.reports.figures.style import save
from lvm.reports.figures.training import share_figure, training_figure
from lvm.reports.tables.evaluation import model_table
from lvm.reports.tables.gates import gate_table
from tasks.gate_log import gate_tag, log_gates
from tasks.tracking.logged_model import log_checkpoint, log_model_metrics
from tasks.tracking.runs import fail, log_metrics, set_tags
from tasks.train import TrainedModel
from tasks.trainer_process import last_step, metrics_file

SPLITS = ("val", "test")


class ValidatedModel(BaseModel):
    """The evaluation of one model. Choices are made on `val`; `test` is only reported."""

    model_config = ConfigDict(frozen=True)

    trained: TrainedModel
    model_id: str
    """Id of its checkpoint as MLflow's LoggedModel."""

    val: dict[str, Any]
    test: dict[str, Any]
    gates: list[dict[str, Any]]

    @property
    def gate_results(self) -> list[GateResult]:
        """Its gates."""
        return [GateResult(**gate) for gate in self.gates]

    @property
    def passed(self) -> bool:
        """Whether no gate failed; some may warn, see `verdict`."""
        return all(gate["passed"] for gate in self.gates)

    @property
    def verdict(self) -> str:
        """What the gates say together: 'pass' only when every one is ok."""
        return verdict(self.gate_results)

    @property
    def remarks(self) -> list[str]:
        """A line for each gate that failed or warns."""
        words = {"fail": "failed", "warn": "has a warning of"}
        arch, results = self.trained.arch, self.gate_results
        return [f"{arch} {words[r.severity]} `{r.name}`: {r.sentence}" for r in results if r.severity != "ok"]

    def page(self) -> str:
        """The model's page in MLflow: what its gates say, its test results beside every baseline, and its card."""
        card = (self.trained.path / "card.md").read_text(encoding="utf-8")
        parts = [f"# Gates: {self.verdict}", *(f"- {line}" for line in self.remarks)]
        return "\n\n".join([*parts, model_table(self.test, self.trained.arch).markdown(), card])


@task
def validate_models(
    models: list[TrainedModel], dataset: Path, limits: GateThresholds, parent: str, figures: Path, device: str
) -> list[ValidatedModel]:
    """Evaluate each model on validation and test documents and run its gates; log metrics, gates, tables and figures.

    A model that does not load is logged and left out. Raises `GateRefused` when none is left.
    """
    data = open_dataset(dataset)
    validated: list[ValidatedModel] = []
    on_test: dict[str, Evaluation] = {}
    references: dict[str, Reference] = {}
    for model in models:
        try:
            checkpoint = load_checkpoint(model.path, resolve_device(device), limits.parity)
        except (InputError, GateRefused) as error:
            get_run_logger().error("%s does not load: %s", model.arch, error)
            set_tags(model.run_id, {"lvm.gate": "fail"})
            fail(model.run_id, str(error))
            continue
        # The models of a flow share dataset, context length and retrieval pool, so they share these too.
        references = references or {split: make_reference(data, checkpoint, split) for split in SPLITS}
        found = {split: evaluate_checkpoint(data, checkpoint, split, ref=references[split]) for split in SPLITS}
        validated.append(_logged(model, checkpoint, found, model_gates(checkpoint, found["val"], limits), data.manifest))
        on_test[model.arch] = found["test"]
        shares = share_figure(checkpoint.config.gradient_shares, model.arch, limits)
        _log_figures(model.run_id, {model.arch: model.path}, {model.arch: found["test"]}, figures / model.arch, shares)
    if not validated:
        raise GateRefused("no model could be loaded; see the log above")
    _log_figures(parent, {model.arch: model.path for model in models}, on_test, figures)
    return validated


def _log_figures(
    run_id: str, folders: dict[str, Path], evaluations: dict[str, Evaluation], figures: Path, shares: Figure | None = None
) -> None:
    """Draw models into one set of figures and log it to a run; `shares` are the gradient shares of a single model's losses."""
    made = evaluation_figures(evaluations, figures)
    made.append(save(training_figure({arch: metrics_file(folder) for arch, folder in folders.items()}), figures / "training.png"))
    if shares is not None:
        made.append(save(shares, figures / "shares.png"))
    for file in made:
        MlflowClient().log_artifact(run_id, str(file), "figures")


def evaluation_metrics(split: str, summary: dict[str, Any]) -> dict[str, float]:
    """An `Evaluation.summary()` as MLflow metrics: the model's own values and those of every baseline."""
    return own_metrics(split, summary) | baseline_metrics(split, summary)


def own_metrics(split: str, summary: dict[str, Any]) -> dict[str, float]:
    """`split/cosine` with its ends and the like, and the collapse metrics."""
    metrics = {
        name: value for metric, found in summary["metrics"].items() for name, value in interval_metrics(f"{split}/{metric}", found).items()
    }
    return metrics | {f"{split}/{name}": value for name, value in summary["collapse"].items()}


def baseline_metrics(split: str, summary: dict[str, Any]) -> dict[str, float]:
    """Values of each baseline, as `split/baseline_ridge_cosine`."""
    return {f"{split}/baseline_{b}_{q}": v for b, values in summary["baselines"].items() for q, v in values.items()}


def interval_metrics(name: str, interval: Mapping[str, float | None]) -> dict[str, float]:
    """An interval as up to three metrics: the value, `_low` and `_high`."""
    found = {name: interval["value"], f"{name}_low": interval["low"], f"{name}_high": interval["high"]}
    return {key: value for key, value in found.items() if value is not None}


def _logged(
    trained: TrainedModel, checkpoint: Checkpoint, found: Mapping[str, Evaluation], gates: list[GateResult], data: Manifest
) -> ValidatedModel:
    """Log metrics, summaries, gates and card to the model's run, and end it; the model's own metrics go to its LoggedModel too."""
    client, run_id, arch, step = MlflowClient(), trained.run_id, trained.arch, last_step(trained.path)
    summaries = {split: evaluation.summary() for split, evaluation in found.items()}
    model = ValidatedModel(
        trained=trained,
        model_id=log_checkpoint(run_id, trained.path, checkpoint.config),
        **summaries,
        gates=[gate.as_json() for gate in gates],
    )
    own: dict[str, float] = {}
    baselines: dict[str, float] = {}
    for split, summary in summaries.items():
        own |= own_metrics(split, summary)
        baselines |= baseline_metrics(split, summary)
        client.log_dict(run_id, summary, f"evaluation/{split}.json")
    log_metrics(run_id, baselines, step)
    log_model_metrics(run_id, model.model_id, own, step, data)
    log_gates(run_id, gates, "model", step)
    write_record(trained.path, data.digest, model.gates, model.val, model.test)
    client.log_text(run_id, model.page(), "card.md")
    set_tags(run_id, {"lvm.gate": gate_tag(gates)})
    client.set_terminated(run_id, "FINISHED")
    tables = [gate_table(gates, f"Gates on {arch}, validation documents"), model_table(model.test, arch)]
    create_markdown_artifact("\n\n".join(t.markdown() for t in tables), key=f"model-{arch}", description=f"{arch}: gates and baselines")
    return model
