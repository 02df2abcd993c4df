"""The registry: who becomes challenger and champion, what is refused, and what the champion answers once it is loaded."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL
from prefect.logging import disable_run_logger

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.evaluation.compare import Comparison
from lvm.evaluation.evaluate import SKILLS, evaluate_checkpoint
from lvm.evaluation.intervals import Interval
from lvm.gates.model import model_gates
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.tables.evaluation import skill_over_best
from lvm.training.trainer import train
from tasks import promote as promote_module
from tasks.promote import Promotion, promote_best
from tasks.tracking.logged_model import log_checkpoint
from tasks.tracking.runs import MODEL, child_run, parent_run
from tasks.train import TrainedModel
from tasks.validate import ValidatedModel
from tasks.workspace import Workspace
from tests.support.trainings import tiny, trained


def evaluated(workspace: Workspace, dataset: Dataset, path: Path) -> ValidatedModel:
    """The model in `path`, with its evaluation, its gates and its MLflow run."""
    checkpoint = load_checkpoint(path, torch.device("cpu"))
    with parent_run(workspace, "parent", {}, {}) as parent:
        run = child_run(parent, path.name, checkpoint.config.train.model_dump(), {}, dataset.manifest)
        MlflowClient().set_terminated(run, "FINISHED")
    found = evaluate_checkpoint(dataset, checkpoint, "val")
    gates = [gate.as_json() for gate in model_gates(checkpoint, found, GateThresholds())]
    logged = log_checkpoint(run, path, checkpoint.config)
    test = evaluate_checkpoint(dataset, checkpoint, "test").summary()
    trained = TrainedModel(arch="lstm", path=path, run_id=run)
    return ValidatedModel(trained=trained, model_id=logged, val=found.summary(), test=test, gates=gates)


def cleared(model: ValidatedModel, *warned: str) -> ValidatedModel:
    """The model as if it had passed its gates: one that passes takes longer to train, and only what follows is tested here."""
    gates = [gate | {"passed": True, "severity": "warn" if gate["name"] in warned else "ok"} for gate in model.gates]
    return model.model_copy(update={"gates": gates})


def barred(model: ValidatedModel) -> ValidatedModel:
    """The model as if it had failed its gates."""
    return model.model_copy(update={"gates": [gate | {"passed": False, "severity": "fail"} for gate in model.gates]})


@pytest.fixture(scope="module")
def weak(workspace: Workspace, dataset: Dataset) -> ValidatedModel:
    """A model that a far too high learning rate has spoiled, in both heads; its gates refuse it."""
    path = workspace.runs / "weak"
    train(tiny(dataset, "epochs=1", "learning_rate=0.1"), dataset, path, torch.device("cpu"))
    return evaluated(workspace, dataset, path)


@pytest.fixture(scope="module")
def strong(workspace: Workspace, dataset: Dataset) -> ValidatedModel:
    """A model better than `weak` on the same documents, in both heads."""
    path = workspace.runs / "strong"
    shutil.copytree(trained(dataset), path)
    return evaluated(workspace, dataset, path)


@dataclass(frozen=True)
class Step:
    """What a call of the task answered, and how it left registry and link."""

    outcome: Promotion
    aliases: dict[str, str]
    versions: list[str]
    champion: str | None


def promote(workspace: Workspace, dataset: Dataset, *models: ValidatedModel) -> Step:
    """Run the task's own function; an existing champion passes its gates."""
    with disable_run_logger():
        outcome = promote_best.fn(list(models), dataset.path, workspace, workspace.champion.exists(), GateThresholds(), "cpu")
    versions = sorted(str(found.version) for found in MlflowClient().search_model_versions(f"name = '{MODEL}'"))
    aliases = MlflowClient().get_registered_model(MODEL).aliases if versions else {}
    champion = workspace.champion.resolve().name if workspace.champion.exists() else None
    return Step(outcome, {alias: str(version) for alias, version in aliases.items()}, versions, champion)


@pytest.fixture(scope="module")
def life(workspace: Workspace, dataset: Dataset, weak: ValidatedModel, strong: ValidatedModel) -> dict[str, Step]:
    """A registry's life: each step begins where the one before it ended."""
    other = barred(strong.model_copy(update={"trained": strong.trained.model_copy(update={"arch": "transformer"})}))
    return {
        "barred": promote(workspace, dataset, weak),
        "first": promote(workspace, dataset, cleared(weak)),
        "again": promote(workspace, dataset, cleared(weak)),
        "better": promote(workspace, dataset, cleared(strong, "baselines")),
        "worse": promote(workspace, dataset, other, cleared(weak)),
    }


def test_model_that_fails_a_gate_is_never_registered(life, weak):
    step = life["barred"]
    assert not weak.passed
    assert (step.outcome.challenger, step.outcome.promoted, step.outcome.version) == (None, False, None)
    assert step.outcome.reason == f"no model passed its gates: lstm {weak.verdict}" and "FAIL: baselines" in weak.verdict
    assert (step.aliases, step.versions, step.champion) == ({}, [], None)


def test_first_model_that_passes_becomes_challenger_and_champion(life, workspace, weak):
    step = life["first"]
    assert (step.outcome.challenger, step.outcome.promoted, step.outcome.version) == ("lstm", True, "1")
    assert (step.aliases, step.champion) == ({"challenger": "1", "champion": "1"}, "weak-v1")
    published = workspace.root / "models" / "versions" / "weak-v1"
    for name in ("config.json", "model.safetensors", "golden.safetensors", "baselines.safetensors", "card.md"):
        assert (published / name).read_bytes() == (weak.trained.path / name).read_bytes()


def test_same_model_again_is_neither_registered_nor_promoted(life):
    step = life["again"]
    assert (step.outcome.challenger, step.outcome.promoted, step.outcome.version) == ("lstm", False, None)
    assert "the current champion itself" in step.outcome.reason
    assert (step.aliases, step.versions, step.champion) == ({"challenger": "1", "champion": "1"}, ["1"], "weak-v1")


def test_better_model_replaces_the_champion_on_paired_documents(life, workspace, strong):
    step = life["better"]
    assert (step.outcome.promoted, step.outcome.version) == (True, "2")
    assert "challenger minus champion on 7 validation documents: cosine +" in step.outcome.reason
    assert (step.aliases, step.champion) == ({"challenger": "2", "champion": "2"}, "strong-v2")
    assert workspace.champion.is_symlink()
    assert (workspace.root / "models" / "versions" / "weak-v1" / "config.json").is_file(), "what served before is still there to go back to"
    run = MlflowClient().get_run(strong.trained.run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.tags["lvm.version"], run.data.tags["lvm.promoted"]) == ("2", "true")
    version = MlflowClient().get_model_version(MODEL, "2")
    assert version.description == cleared(strong, "baselines").page()[:5000]
    assert (version.tags["lvm.arch"], version.tags["lvm.encoder"]) == ("lstm", "minilm")
    assert "`champion` is the model to serve" in MlflowClient().get_registered_model(MODEL).description


def test_warning_of_a_promoted_model_is_told_with_the_promotion_and_on_its_page(life, strong):
    assert life["first"].outcome.reason.endswith("; gates of the lstm: pass")
    assert life["better"].outcome.reason.endswith("; gates of the lstm: pass with warnings: baselines")
    tags = {number: MlflowClient().get_model_version(MODEL, number).tags["lvm.gate"] for number in ("1", "2")}
    assert tags == {"1": "pass", "2": "warn"}
    page = MlflowClient().get_model_version(MODEL, "2").description
    assert page.startswith("# Gates: pass with warnings: baselines\n\n- lstm has a warning of `baselines`: ")
    assert all(skill_over_best(strong.test, metric) in page for metric in SKILLS)


def test_registered_version_is_the_checkpoint_that_was_measured_now_with_files(life, strong):
    version = MlflowClient().get_model_version(MODEL, "2")
    assert (version.source, version.run_id) == (f"models:/{strong.model_id}", strong.trained.run_id)
    assert MLFLOW_MODEL_IS_EXTERNAL not in MlflowClient().get_logged_model(strong.model_id).tags
    outputs = MlflowClient().get_run(strong.trained.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [strong.model_id]
    info = mlflow.models.get_model_info("models:/lvm@champion")
    assert info.signature is not None and info.signature.inputs.inputs[0].shape == (-1, -1, 384)
    assert info.saved_input_example_info is not None


def test_worse_model_is_challenger_though_a_barred_one_is_better_and_the_champion_stays(life, weak):
    step = life["worse"]
    assert (step.outcome.challenger, step.outcome.promoted, step.outcome.version) == ("lstm", False, "3")
    assert "challenger minus champion on 7 validation documents: cosine -" in step.outcome.reason
    assert (step.aliases, step.champion) == ({"challenger": "3", "champion": "2"}, "strong-v2")
    assert MlflowClient().get_run(weak.trained.run_id).data.tags["lvm.promoted"] == "false"


@pytest.mark.slow
def test_registered_champion_reproduces_the_golden_predictions_without_this_checkout_or_pickle(life, workspace, strong, tmp_path):
    words = """
import json, sys
import mlflow, numpy as np
from safetensors.numpy import load_file
model = mlflow.pyfunc.load_model("models:/lvm@champion")
golden = load_file(sys.argv[1])
answers = {"default": model.predict(golden["inputs"])}
answers |= {kind: model.predict(golden["inputs"], params={"output_type": kind}) for kind in ("decoder", "cosine")}
heads = {"default": "y_dec", "decoder": "y_dec", "cosine": "y_cos"}
print(json.dumps({kind: float(np.abs(found - golden[heads[kind]]).max()) for kind, found in answers.items()}))
try:
    model.predict(golden["inputs"], params={"output_type": "text"})
except ValueError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{workspace.mlruns / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    command = [sys.executable, "-c", words, str((strong.trained.path / "golden.safetensors").resolve())]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    differences, refusal = done.stdout.splitlines()[-2:]
    assert set(json.loads(differences)) == {"default", "decoder", "cosine"}
    assert max(json.loads(differences).values()) <= 1e-4
    assert "expected 'decoder' or 'cosine'" in refusal


def test_nothing_that_was_registered_is_pickled(life, workspace):
    kept = [file for file in (workspace.mlruns / "artifacts").rglob("*") if file.is_file()]
    assert any(file.name == "model.safetensors" for file in kept)
    assert [file for file in kept if file.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")] == []


def test_alias_that_a_killed_flow_left_behind_follows_the_exported_champion(life, workspace, dataset, strong):
    MlflowClient().set_registered_model_alias(MODEL, "champion", "1")
    step = promote(workspace, dataset, cleared(strong))
    assert (step.outcome.promoted, step.champion) == (False, "strong-v2")
    assert step.aliases["champion"] == "2"


def test_challenger_that_is_ahead_by_no_more_than_chance_is_not_promoted(life, workspace, dataset, weak, monkeypatch):
    chance = Comparison(dict.fromkeys(("cosine", "recall_at_1", "recall_at_5", "mrr"), Interval(0.01, -0.01, 0.03)), 12, 0)
    monkeypatch.setattr(promote_module, "compare", lambda *_: chance)
    step = promote(workspace, dataset, cleared(weak))
    assert step.outcome.version is not None and not step.outcome.promoted
    assert (step.champion, step.aliases["champion"]) == ("strong-v2", "2")
    assert step.outcome.reason == f"{chance}; gates of the lstm: {cleared(weak).verdict}"
