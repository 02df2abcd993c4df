"""Stage `evaluate_checkpoint`: every new model beside the baselines, and through the gates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from lvm.data.dataset import Manifest, open_dataset
from lvm.devices import resolve_device
from lvm.errors import GateRefused, InputError
from lvm.evaluation.evaluate import Reference, evaluate_checkpoint, make_reference
from lvm.evaluation.record import write_record
from lvm.gates.model import model_gates
from lvm.gates.result import GateResult
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.figures.evaluation import evaluation_figures
from lvm.reports.figures.style import save
from lvm.reports.figures.training import share_figure, training_figure
from lvm.reports.tables.evaluation import model_table
from lvm.reports.tables.gates import gate_table
from tasks.gate_log import log_gates
from tasks.tracking.logged_model import log_checkpoint, log_model_metrics
from tasks.tracking.runs import fail, log_metrics, set_tags
from tasks.train import TrainedModel
from tasks.trainer_process import last_step, metrics_file


class ValidatedModel(BaseModel):
    """What was measured on one model. Choices are made on `val`; `test` is only reported."""

    model_config = ConfigDict(frozen=True)

    trained: TrainedModel
    model_id: str
    """Its checkpoint as MLflow's LoggedModel."""

    val: dict[str, Any]
    test: dict[str, Any]
    gates: list[dict[str, Any]]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate["passed"] for gate in self.gates)


@task
def validate_models(models: list[TrainedModel], dataset: Path, parent: str, figures: Path, device: str) -> list[ValidatedModel]:
    """Measure each model on validation and test documents; log metrics, gates, tables and figures."""
    client = MlflowClient()
    data = open_dataset(dataset)
    evaluations, validated = {}, []
    references: dict[str, Reference] = {}
    for model in models:
        try:
            checkpoint = load_checkpoint(model.path, resolve_device(device))
        except (InputError, GateRefused) as error:  # the model is barred, its siblings go on
            get_run_logger().error("%s does not reload: %s", model.arch, error)
            set_tags(model.run_id, {"lvm.gate": "fail"})
            fail(model.run_id, str(error))
            continue
        # All models of one flow share dataset, context length and baselines, hence these too.
        references = references or {split: make_reference(data, checkpoint, split) for split in ("val", "test")}
        found = {split: evaluate_checkpoint(data, checkpoint, split, ref=references[split]) for split in ("val", "test")}
        gates = model_gates(checkpoint, found["val"])
        evaluations[model.arch] = found["test"]
        validated.append(
            ValidatedModel(
                trained=model,
                model_id=log_checkpoint(model.run_id, model.path, checkpoint.config),
                val=found["val"].summary(),
                test=found["test"].summary(),
                gates=[g.as_json() for g in gates],
            )
        )
        _log(validated[-1], gates, data.manifest)
        folder = figures / model.arch
        made = evaluation_figures({model.arch: found["test"]}, folder)
        made.append(save(training_figure({model.arch: metrics_file(model.path)}), folder / "training.png"))
        made.append(save(share_figure(checkpoint.config.gradient_shares, model.arch), folder / "shares.png"))
        for file in made:
            client.log_artifact(model.run_id, str(file), "figures")
    if not validated:
        raise GateRefused("no model could be reloaded; see the log above")
    together = evaluation_figures(evaluations, figures)
    together.append(save(training_figure({m.arch: metrics_file(m.path) for m in models}), figures / "training.png"))
    for file in together:
        client.log_artifact(parent, str(file), "figures")
    return validated


def evaluation_metrics(split: str, summary: dict[str, Any]) -> dict[str, float]:
    """Names for MLflow of an `Evaluation.summary()`: the model's own values and every baseline's."""
    return own_metrics(split, summary) | baseline_metrics(split, summary)


def own_metrics(split: str, summary: dict[str, Any]) -> dict[str, float]:
    """`split/cosine` with its ends and the like, and the collapse metrics."""
    metrics = {
        name: value for metric, found in summary["metrics"].items() for name, value in interval_metrics(f"{split}/{metric}", found).items()
    }
    return metrics | {f"{split}/{name}": value for name, value in summary["collapse"].items()}


def baseline_metrics(split: str, summary: dict[str, Any]) -> dict[str, float]:
    """What each baseline reaches, as `split/baseline_ridge_cosine`."""
    return {f"{split}/baseline_{b}_{q}": v for b, values in summary["baselines"].items() for q, v in values.items()}


def interval_metrics(name: str, interval: Mapping[str, float | None]) -> dict[str, float]:
    """An interval as up to three metrics: the value, `_low` and `_high`."""
    found = {name: interval["value"], f"{name}_low": interval["low"], f"{name}_high": interval["high"]}
    return {key: value for key, value in found.items() if value is not None}


def _log(model: ValidatedModel, gates: list[GateResult], data: Manifest) -> None:
    """Metrics with their intervals, summaries, gates and card to the model's run, which ends here; what is the model's own to it too."""
    client, run_id, arch, step = MlflowClient(), model.trained.run_id, model.trained.arch, last_step(model.trained.path)
    own: dict[str, float] = {}
    others: dict[str, float] = {}
    for split, summary in (("val", model.val), ("test", model.test)):
        own |= own_metrics(split, summary)
        others |= baseline_metrics(split, summary)
        client.log_dict(run_id, summary, f"evaluation/{split}.json")
    log_metrics(run_id, others, step)
    log_model_metrics(run_id, model.model_id, own, step, data)
    log_gates(run_id, gates, "model", step)
    write_record(model.trained.path, data.digest, model.gates, model.val, model.test)
    client.log_artifact(run_id, str(model.trained.path / "card.md"))
    set_tags(run_id, {"lvm.gate": "pass" if model.passed else "fail"})
    client.set_terminated(run_id, "FINISHED")
    tables = [gate_table(gates, f"Gates on {arch}, validation documents"), model_table(model.test, arch)]
    create_markdown_artifact("\n\n".join(t.markdown() for t in tables), key=f"model-{arch}", description=f"{arch}: gates and baselines")
