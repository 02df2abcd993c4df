"""MLflow holds one experiment, runs that end, and every metric exactly once."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from lvm.data.dataset import Dataset
from tasks.tracking.relay import MetricsRelay
from tasks.tracking.runs import EXPERIMENT, child_run, connect, failing, log_dataset, log_metrics, parent_run, set_tags
from tasks.workspace import Workspace


def run_of(run_id: str) -> Any:
    return MlflowClient().get_run(run_id)


@pytest.fixture()
def workspace(workspace: Workspace) -> Workspace:
    """The module's workspace, connected again: another test may have been elsewhere since."""
    connect(workspace)
    return workspace


# The store


def test_connect_makes_the_workspace_s_own_database_and_experiment(workspace):
    assert (workspace.mlruns / "mlflow.db").is_file()
    assert mlflow.get_tracking_uri() == f"sqlite:///{workspace.mlruns / 'mlflow.db'}"
    experiment = MlflowClient().get_experiment_by_name(EXPERIMENT)
    assert experiment.artifact_location == (workspace.mlruns / "artifacts").as_uri()


def test_connect_again_finds_the_same_experiment(workspace):
    first, second = connect(workspace), connect(workspace)
    assert first == second
    assert [e.name for e in MlflowClient().search_experiments()].count(EXPERIMENT) == 1


def test_each_workspace_of_one_process_has_its_own_store(workspace, make_workspace, tmp_path):
    other = make_workspace(tmp_path)
    with parent_run(other, "elsewhere", {}, {}) as run:
        assert mlflow.get_tracking_uri() == f"sqlite:///{other.mlruns / 'mlflow.db'}"
    connect(workspace)
    assert run not in [found.info.run_id for found in MlflowClient().search_runs([connect(workspace)])]


def test_store_that_the_environment_names_is_used_and_no_other_is_made(workspace, tmp_path, monkeypatch):
    shutil.copy(workspace.mlruns / "mlflow.db", tmp_path / "asked.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'asked.db'}")
    with parent_run(Workspace(root=tmp_path / "root"), "asked", {}, {}) as run:
        pass
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path / 'asked.db'}"
    assert run_of(run).info.status == "FINISHED"
    assert not (tmp_path / "root").exists()


# Runs


def test_parent_run_holds_parameters_and_tags_and_ends_finished(workspace):
    with parent_run(workspace, "retrain", {"sources": ["builtin:sotu"], "model": {"width": 64}}, {"lvm.tag": "x"}) as run:
        assert run_of(run).info.status == "RUNNING"
    found = run_of(run)
    assert found.info.status == "FINISHED" and found.info.run_name == "retrain"
    assert found.data.params == {"sources": '["builtin:sotu"]', "model.width": "64"}
    assert found.data.tags["lvm.tag"] == "x"
    assert mlflow.active_run() is None


@pytest.mark.parametrize("error", [ValueError("chunk order was lost"), KeyboardInterrupt("stopped by hand")])
def test_parent_run_ends_failed_with_the_reason_when_its_block_raises(error, workspace):
    with pytest.raises(type(error)), parent_run(workspace, "fails", {}, {}) as run:
        raise error
    assert run_of(run).info.status == "FAILED"
    assert run_of(run).data.tags[MLFLOW_RUN_NOTE] == f"{type(error).__name__}: {error}"


def test_child_runs_are_linked_to_their_parent_with_parameters_and_data(workspace, dataset):
    with parent_run(workspace, "parent", {}, {}) as parent:
        children = [child_run(parent, arch, {"model": {"arch": arch}}, {"lvm.arch": arch}, dataset.manifest) for arch in ("lstm", "gru")]
    for child, arch in zip(children, ("lstm", "gru"), strict=True):
        found = run_of(child)
        assert found.data.tags[MLFLOW_PARENT_RUN_ID] == parent
        assert (found.info.run_name, found.data.params, found.data.tags["lvm.arch"]) == (arch, {"model.arch": arch}, arch)
        assert found.info.experiment_id == run_of(parent).info.experiment_id
        assert [i.dataset.digest for i in found.inputs.dataset_inputs] == [dataset.manifest.digest[:12]]


def test_failed_parent_leaves_no_child_running_and_finished_ones_alone(workspace, dataset):
    with pytest.raises(ValueError), parent_run(workspace, "parent", {}, {}) as parent:
        done, waiting = (child_run(parent, name, {}, {}, dataset.manifest) for name in ("done", "waiting"))
        MlflowClient().set_terminated(done, "FINISHED")
        raise ValueError("the disk is full")
    assert (run_of(done).info.status, run_of(waiting).info.status) == ("FINISHED", "FAILED")
    assert "the disk is full" in run_of(waiting).data.tags[MLFLOW_RUN_NOTE]


def test_child_run_whose_training_raises_ends_failed_with_the_reason(workspace, dataset):
    with parent_run(workspace, "parent", {}, {}) as parent:
        child = child_run(parent, "lstm", {}, {}, dataset.manifest)
        with pytest.raises(RuntimeError), failing(child):
            raise RuntimeError("trainer ended with -9")
    assert (run_of(parent).info.status, run_of(child).info.status) == ("FINISHED", "FAILED")
    assert run_of(child).data.tags[MLFLOW_RUN_NOTE] == "RuntimeError: trainer ended with -9"


def test_dataset_is_logged_as_input_by_our_digest_with_its_counts(workspace, dataset: Dataset):
    with parent_run(workspace, "parent", {}, {}) as run:
        log_dataset(run, dataset.manifest)
    (found,) = run_of(run).inputs.dataset_inputs
    assert found.dataset.digest == dataset.manifest.digest[:12]
    assert found.dataset.name == "addresses"
    assert json.loads(found.dataset.source) == {"sources": ["addresses"], "source_digest": dataset.manifest.source_digest}
    assert json.loads(found.dataset.profile) == {"documents": dataset.manifest.documents, "chunks": dataset.manifest.chunks}


def test_runs_that_name_a_new_dataset_at_once_all_hold_it(workspace, dataset: Dataset):
    new = [dataset.manifest.model_copy(update={"key": str(i)}) for i in range(5)]
    with parent_run(workspace, "parent", {}, {}) as parent, ThreadPoolExecutor(6) as pool:
        for manifest in new:
            children = list(pool.map(lambda name, m=manifest: child_run(parent, name, {}, {}, m), "abcdef"))
            for child in children:
                assert [i.dataset.digest for i in run_of(child).inputs.dataset_inputs] == [manifest.digest[:12]]


def test_metrics_and_tags_of_a_run_can_be_set_together(workspace):
    with parent_run(workspace, "parent", {}, {}) as run:
        log_metrics(run, {"val/cosine": 0.5, "val/recall_at_5": 0.25}, step=7)
        set_tags(run, {"lvm.gate": "pass", "lvm.reason": "x" * 6000})
    found = run_of(run)
    assert found.data.metrics == {"val/cosine": 0.5, "val/recall_at_5": 0.25}
    assert found.data.tags["lvm.gate"] == "pass"
    assert found.data.tags["lvm.reason"] == "x" * 4960 + "… and 1,040 more characters"
    assert MlflowClient().get_metric_history(run, "val/cosine")[0].step == 7


# The relay


def line(step: int, time: float = 1.0, values: int = 1, **metrics: float) -> str:
    """An event as the trainer writes it."""
    found = metrics or {f"train/m{i}": step + i / 100 for i in range(values)}
    return json.dumps({"step": step, "epoch": 0, "metrics": found, "timing": {"time": time, "system/eta_seconds": 1.0}}) + "\n"


@pytest.fixture()
def run(workspace: Workspace) -> Iterator[str]:
    """A run to relay to."""
    with parent_run(workspace, "relay", {}, {}) as run:
        yield run


def steps(run: str, name: str = "train/m0") -> list[int]:
    """Steps of a metric's points, as often as they were sent."""
    return sorted(point.step for point in MlflowClient().get_metric_history(run, name))


def test_every_event_is_sent_exactly_once_however_often_it_is_asked(run, tmp_path):
    file = tmp_path / "metrics.jsonl"
    relay = MetricsRelay(file, run)
    relay.relay()  # before the trainer has written anything
    file.write_text(line(0) + line(10))
    relay.relay()
    relay.relay()
    assert steps(run) == [0, 10]
    file.write_text(line(0) + line(10) + line(20) + line(30))
    relay.relay()
    assert steps(run) == steps(run, "system/eta_seconds") == [0, 10, 20, 30]


def test_values_steps_and_times_are_the_trainer_s_own(run, tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(10, time=1234.5, **{"train/loss": 0.25}))
    MetricsRelay(file, run).relay()
    (point,) = MlflowClient().get_metric_history(run, "train/loss")
    assert (point.value, point.step, point.timestamp) == (0.25, 10, 1_234_500)
    assert "time" not in run_of(run).data.metrics


def test_validation_is_sent_though_the_step_of_its_number_comes_later(run, tmp_path):
    file = tmp_path / "metrics.jsonl"
    relay = MetricsRelay(file, run)
    file.write_text(line(0) + line(10, **{"val/cosine": 0.5}))
    relay.relay()
    file.write_text(line(0) + line(10, **{"val/cosine": 0.5}) + line(10))
    relay.relay()
    assert steps(run) == [0, 10]
    assert steps(run, "val/cosine") == [10]


def test_tail_that_a_resumed_trainer_writes_again_is_not_sent_again(run, tmp_path):
    file = tmp_path / "metrics.jsonl"
    relay = MetricsRelay(file, run)
    file.write_text(line(0) + line(10) + line(20) + line(30))
    relay.relay()
    file.write_text(line(0) + line(10))  # back to its checkpoint
    relay.relay()
    file.write_text(line(0) + line(10) + line(20, time=9.0) + line(30, time=9.0) + line(40, time=9.0))
    relay.relay()
    assert steps(run) == [0, 10, 20, 30, 40]


def test_half_written_last_line_is_left_for_later(run, tmp_path):
    file = tmp_path / "metrics.jsonl"
    relay = MetricsRelay(file, run)
    whole = line(0) + line(10)
    for length in range(len(line(0)) + 1, len(whole) - 1, 7):
        file.write_text(whole[:length])
        relay.relay()
        assert steps(run) == [0]
    file.write_text(whole)
    relay.relay()
    assert steps(run) == [0, 10]


def test_more_points_than_mlflow_takes_at_once_all_arrive(run, tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(line(step, values=10) for step in range(250)))
    MetricsRelay(file, run).relay()
    for i in range(10):
        assert steps(run, f"train/m{i}") == list(range(250))


@pytest.mark.slow
def test_metrics_wait_while_the_database_is_locked_and_arrive_once(run, workspace, tmp_path, caplog):
    file = tmp_path / "metrics.jsonl"
    relay = MetricsRelay(file, run)
    file.write_text(line(0) + line(10))
    with contextlib.closing(sqlite3.connect(workspace.mlruns / "mlflow.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        assert not relay.relay_or_wait()
        file.write_text(line(0) + line(10) + line(20))
        assert not relay.relay_or_wait()
        other.execute("rollback")
    assert [str(file) in record.message for record in caplog.records if "wait in" in record.message] == [True], "said once"
    assert relay.relay_or_wait()
    assert steps(run) == [0, 10, 20]
