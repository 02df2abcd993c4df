"""A training can be killed at any moment and goes on; bad input is not tried twice."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from prefect import flow

from lvm.config import read_settings
from lvm.devices import lease
from lvm.errors import GateRefused, InputError
from tasks.tracking.runs import connect, parent_run
from tasks.train import TrainedModel, TrainingPlan, finished_models, plan_training, train_model
from tasks.workspace import Workspace
from tests.support.commands import copy_of, with_vectors
from tests.support.processes import events, trainers, until

EPOCHS = 12
# Early stopping off: the length of a run is known.
SETTINGS = ["model.width=64", "context_length=2", f"epochs={EPOCHS}", "patience=1000"]


@pytest.fixture(scope="module")
def workspace(flow_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with its store, for tasks that run on a Prefect server."""
    workspace = Workspace(root=tmp_path_factory.mktemp("workspace"))
    connect(workspace)
    return workspace


PLACES = ["cpu-0", "cpu-1"]


def plan(settings: list[str], per_model: int = 1) -> TrainingPlan:
    return TrainingPlan(("lstm", "gru"), read_settings(assignments=settings), PLACES, per_model)


def attempts(parent: str) -> dict[str, Any]:
    """The MLflow runs below `parent`, by id."""
    client = MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    found = client.search_runs([experiment], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'")
    return {run.info.run_id: run for run in found}


@pytest.mark.slow
def test_killed_trainer_is_retried_and_goes_on_while_its_sibling_finishes(workspace, dataset):
    killed: list[tuple[int, int, float]] = []

    def kill() -> None:
        def ripe() -> tuple[int, int] | None:
            """The trainer, once it has a checkpoint to go on from: the state is saved before the next epoch's first event."""
            for pid, command in trainers(workspace.runs).items():
                out = Path(command.partition("--out ")[2].split()[0])
                if out.name.startswith("lstm") and (epochs := [e["epoch"] for e in events(out)]) and epochs[-1] >= 2:
                    return pid, epochs[-1]
            return None

        pid, epoch = until(ripe)
        os.kill(pid, signal.SIGKILL)
        killed.append((pid, epoch, time.time()))

    @flow(name="two-trainings")
    def both(parent: str) -> list[TrainedModel]:
        futures = [train_model.submit(workspace, dataset.path, arch, plan(SETTINGS), parent) for arch in ("lstm", "gru")]
        return finished_models(futures)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with parent_run(workspace, "two", {}, {}) as parent:
        lstm, gru = both(parent)
    killer.join(5)

    ((_, epoch, moment),) = killed
    for model in (lstm, gru):
        assert len(json.loads((model.path / "config.json").read_text())["history"]) == EPOCHS
        found = events(model.path)
        assert [e["epoch"] for e in found if "val/cosine" in e["metrics"]] == list(range(EPOCHS)), "each epoch once"
    before = [e["epoch"] for e in events(lstm.path) if e["timing"]["time"] < moment]
    assert before and max(before) >= epoch - 1, "what was done before the kill was kept, not done again"

    runs = attempts(parent)
    failed = [run for run in runs.values() if run.info.status == "FAILED"]
    assert len(runs) == 3 and len(failed) == 1, [run.data.tags[MLFLOW_RUN_NOTE] for run in failed]
    assert "trainer ended with -9" in failed[0].data.tags[MLFLOW_RUN_NOTE]
    assert failed[0].info.run_name == "lstm" and failed[0].info.run_id != lstm.run_id
    for model in (lstm, gru):
        sent = sorted(p.step for p in MlflowClient().get_metric_history(model.run_id, "train/loss"))
        assert sent == [e["step"] for e in events(model.path) if "train/loss" in e["metrics"]], "the whole curve, each point once"
        assert runs[model.run_id].data.tags["lvm.device"] == "cpu"


@pytest.mark.slow
def test_two_devices_train_one_model_and_are_free_afterwards(workspace, dataset):
    with parent_run(workspace, "together", {}, {}) as parent:
        model = train_model(workspace, dataset.path, "gru", plan([*SETTINGS, "seed=1"], per_model=2), parent)
    (run,) = attempts(parent).values()
    assert run.data.tags["lvm.device"] == "cpu,cpu"
    assert "gru on cpu and 1 more" in model.path.with_name(f"{model.path.name}.log").read_text()
    sent = sorted(p.step for p in MlflowClient().get_metric_history(model.run_id, "train/loss"))
    assert sent == [e["step"] for e in events(model.path) if "train/loss" in e["metrics"]], "one process tells, each point once"
    with lease(PLACES, 2) as devices:
        assert devices == "cpu,cpu"


@pytest.mark.slow
def test_input_that_the_trainer_refuses_is_not_tried_again(workspace, dataset, tmp_path):
    folder = copy_of(dataset, tmp_path / "data")
    os.truncate(folder / "chunks-00000.parquet", 100_000)
    with parent_run(workspace, "truncated", {}, {}) as parent:
        state = train_model(workspace, folder, "lstm", plan(SETTINGS), parent, return_state=True)
    error = state.result(raise_on_failure=False)
    assert state.is_failed() and isinstance(error, InputError)
    assert "chunks-00000.parquet is truncated or altered" in str(error)
    (run,) = attempts(parent).values()
    assert run.info.status == "FAILED" and "truncated or altered" in run.data.tags[MLFLOW_RUN_NOTE]


@pytest.mark.slow
def test_model_that_a_gate_stops_is_barred_and_its_sibling_goes_on(workspace, dataset, tmp_path):
    mean = np.asarray(dataset.vectors).mean(0)
    alike = with_vectors(dataset, tmp_path / "alike", lambda vectors: mean + 0.1 * (vectors - mean))  # whatever is learned is one vector
    settings = ["model.width=64", "context_length=2", "epochs=2"]

    @flow(name="one-barred")
    def both(folders: list[Path], parent: str) -> list[TrainedModel]:
        return finished_models([train_model.submit(workspace, folder, "lstm", plan(settings), parent) for folder in folders])

    with parent_run(workspace, "barred", {}, {}) as parent:
        (model,) = both([alike, dataset.path], parent)
        with pytest.raises(GateRefused, match=r"trainer ended with 3: .*lvm: collapse: .* check the loss weights"):
            both([alike], parent)
    runs = attempts(parent)
    barred = [run for run in runs.values() if run.info.run_id != model.run_id]
    assert len(barred) == 2, "not tried again"
    for run in barred:
        assert (run.info.status, run.data.tags["lvm.gate"]) == ("FAILED", "fail")
        assert "nearly one vector: check the loss weights" in run.data.tags[MLFLOW_RUN_NOTE]
    assert len(json.loads((model.path / "config.json").read_text())["history"]) == 2


# The plan, before any work


@pytest.mark.parametrize(
    ("architectures", "settings", "says"),
    [
        (["lstm", "rnn"], [], "architecture 'rnn' is not known: there are lstm, "),
        (["lstm", "lstm"], [], "name each architecture once"),
        ([], [], "name each architecture once"),
        (["lstm"], ["reverse=true"], "field 'reverse' makes a model for comparisons, which cannot be promoted"),
        (["lstm", "gru"], ["gru:context_length=4"], "setting 'context_length' differs between architectures: give all of them the same"),
    ],
)
def test_what_cannot_be_trained_and_compared_is_refused(architectures, settings, says):
    with pytest.raises(InputError, match=says):
        plan_training(architectures, read_settings(assignments=settings), "cpu", None)


def test_settings_of_one_architecture_reach_its_training_alone():
    planned = plan_training(["lstm", "gru"], read_settings(assignments=["model.width=64", "lstm:model.width=128", "epochs=2"]), "cpu", None)
    found = {arch: planned.config(arch, 384) for arch in planned.architectures}
    assert {arch: (config.model.width, config.epochs) for arch, config in found.items()} == {"lstm": (128, 2), "gru": (64, 2)}


def test_threads_are_shared_out_unless_they_are_set():
    assert plan_training(["lstm"], read_settings(), "cpu", None).config("lstm", 1).threads == max(1, os.cpu_count() or 1)
    assert plan_training(["lstm"], read_settings(assignments=["threads=3"]), "cpu", None).config("lstm", 1).threads == 3
