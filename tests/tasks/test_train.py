"""A trainer can be killed at any moment and goes on; it never outlives its flow; bad input is not tried twice."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from prefect import flow
from prefect.futures import wait
from prefect.testing.utilities import prefect_test_harness

from lvm.corpus.dataset import Dataset
from lvm.errors import InputError
from tasks.tracking import MetricsRelay, connect, parent_run
from tasks.train import TrainedModel, _run_trainer, train_model
from tasks.workspace import Workspace
from tests.lvm.test_cli import copy_of

EPOCHS = 12
# Early stopping off: the length of a run is known.
SETTINGS = ["model.width=64", "context_length=2", f"epochs={EPOCHS}", "patience=1000"]


def until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """The first true value of `condition`, asked again and again."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def events(out: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's metrics.jsonl; none where there is no file yet."""
    file = out / "training" / "metrics.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def trainers(folder: Path) -> dict[int, str]:
    """Trainer processes that write below `folder`: pid to command line."""
    listed = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=1) for line in listed.splitlines())
    return {int(pid): command for pid, command in rows if f"--out {folder}" in command and "-m lvm train" in command}


def train_command(dataset: Dataset, out: Path, *more: str) -> list[str]:
    """A training that goes on for an hour if nothing ends it."""
    settings = ["model.width=64", "context_length=2", "epochs=100000", "patience=100000"]
    command = [sys.executable, "-m", "lvm", "train", str(dataset.path), "--arch", "lstm", "--out", str(out), "--device", "cpu"]
    return [*command, *(f"--set={setting}" for setting in settings), *more]


# The process


def relay(tmp_path: Path) -> MetricsRelay:
    """A relay of a file that never comes: nothing to send."""
    return MetricsRelay(tmp_path / "none.jsonl", "none")


def test_trainer_that_refuses_its_input_is_an_input_error_with_its_own_sentence(tmp_path):
    command = [sys.executable, "-m", "lvm", "train", str(tmp_path / "none"), "--arch", "lstm", "--out", str(tmp_path / "lstm")]
    with pytest.raises(InputError, match=r"dataset .*none is not a folder: make one with 'lvm extract"):
        _run_trainer(command, tmp_path / "lstm", 1, relay(tmp_path))


@pytest.mark.parametrize(
    ("ends", "says"), [("sys.exit('no memory left')", "ended with 1: no memory left"), ("os.kill(os.getpid(), 9)", "ended with -9")]
)
def test_trainer_that_breaks_is_another_error_that_names_its_log(ends, says, tmp_path):
    with pytest.raises(RuntimeError, match=says) as caught:
        _run_trainer([sys.executable, "-c", f"import os, sys; {ends}"], tmp_path / "lstm", 1, relay(tmp_path))
    assert str(tmp_path / "lstm.log") in str(caught.value)


def test_trainer_gets_its_threads_and_not_the_flow_s_mlflow_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "the flow's")
    _run_trainer([sys.executable, "-c", "import os; print(dict(os.environ))"], tmp_path / "lstm", 3, relay(tmp_path))
    words = (tmp_path / "lstm.log").read_text()
    assert "'OMP_NUM_THREADS': '3'" in words and "MLFLOW_RUN_ID" not in words


@pytest.mark.slow
def test_trainer_ends_when_the_pipe_from_its_parent_closes(dataset, tmp_path):
    process = subprocess.Popen(train_command(dataset, tmp_path / "lstm", "--until-stdin-closes"), stdin=subprocess.PIPE)
    try:
        seen = len(until(lambda: events(tmp_path / "lstm")))
        until(lambda: len(events(tmp_path / "lstm")) > seen + 3)
        assert process.poll() is None, "it goes on as long as the pipe is open"
        process.stdin.close()
        assert process.wait(timeout=5) != 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_trainer_ends_when_its_parent_is_killed(dataset, tmp_path):
    out = tmp_path / "lstm"
    words = "import sys; from pathlib import Path; from tasks.tracking import MetricsRelay; from tasks.train import _run_trainer; "
    words += "_run_trainer(sys.argv[2:], Path(sys.argv[1]), 1, MetricsRelay(Path('none'), 'none'))"
    command = train_command(dataset, out, "--until-stdin-closes")
    parent = subprocess.Popen([sys.executable, "-c", words, str(out), *command], start_new_session=True)
    try:
        until(lambda: len(events(out)) > 3)
        (trainer,) = (pid for pid in trainers(out) if pid != parent.pid)
        parent.kill()
        parent.wait()
        until(lambda: not alive(trainer), seconds=5)
    finally:
        parent.kill()
        for pid in trainers(out):
            os.kill(pid, signal.SIGKILL)


# The task


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with its store and leases, and a Prefect server of its own."""
    with pytest.MonkeyPatch.context() as patch, prefect_test_harness(server_startup_timeout=120):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("leases")))
        workspace = Workspace(root=tmp_path_factory.mktemp("workspace"))
        connect(workspace)
        yield workspace


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
        places = ["cpu-0", "cpu-1"]
        futures = [train_model.submit(workspace, dataset.path, arch, SETTINGS, places, parent, "flow", False) for arch in ("lstm", "gru")]
        wait(futures)
        return [future.result() for future in futures]

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
def test_input_that_the_trainer_refuses_is_not_tried_again(workspace, dataset, tmp_path):
    folder = copy_of(dataset, tmp_path / "data")
    os.truncate(folder / "chunks-00000.parquet", 100_000)
    with parent_run(workspace, "truncated", {}, {}) as parent:
        state = train_model(workspace, folder, "lstm", SETTINGS, ["cpu-0"], parent, "flow", False, return_state=True)
    error = state.result(raise_on_failure=False)
    assert state.is_failed() and isinstance(error, InputError)
    assert "chunks-00000.parquet is truncated or altered" in str(error)
    (run,) = attempts(parent).values()
    assert run.info.status == "FAILED" and "truncated or altered" in run.data.tags[MLFLOW_RUN_NOTE]


@pytest.mark.slow
def test_unknown_setting_is_refused_before_any_run_or_process(workspace, dataset):
    with parent_run(workspace, "unknown", {}, {}) as parent:
        state = train_model(workspace, dataset.path, "lstm", ["model.widht=64"], ["cpu-0"], parent, "flow", False, return_state=True)
    assert isinstance(state.result(raise_on_failure=False), InputError)
    assert "model.widht" in str(state.result(raise_on_failure=False))
    assert attempts(parent) == {}
