"""A trainer never outlives its flow, and its end is told apart: refused input, a failure of its own, a kill."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

import tasks.trainer_process
from lvm.data.dataset import Dataset
from lvm.errors import GateRefused, InputError
from tasks.tracking.relay import MetricsRelay
from tasks.tracking.runs import connect
from tasks.trainer_process import TrainerFailed, run_trainer, train_into
from tasks.workspace import Workspace
from tests.support.processes import alive, events, trainers, until


def train_command(dataset: Dataset, out: Path, *more: str, device: str = "cpu") -> list[str]:
    """A training that goes on for an hour if nothing ends it; of a process for each device."""
    settings = ["model.width=64", "context_length=2", "epochs=100000", "patience=100000"]
    command = [sys.executable, "-m", "lvm", "train", str(dataset.path), "--arch", "lstm", "--out", str(out), "--device", device]
    return [*command, *(f"--set={setting}" for setting in settings), *more]


def relay(tmp_path: Path) -> MetricsRelay:
    """A relay of a file that never comes: nothing to send."""
    return MetricsRelay(tmp_path / "none.jsonl", "none")


def test_trainer_that_refuses_its_input_is_an_input_error_with_its_own_sentence(tmp_path):
    command = [sys.executable, "-m", "lvm", "train", str(tmp_path / "none"), "--arch", "lstm", "--out", str(tmp_path / "lstm")]
    with pytest.raises(InputError, match=r"dataset .*none is not a folder: make one with 'lvm extract"):
        run_trainer(command, tmp_path / "lstm", 1, relay(tmp_path))


@pytest.mark.parametrize(
    ("ends", "says", "kind"),
    [
        ("sys.exit('no memory left')", "ended with 1: no memory left", TrainerFailed),
        ("print('lvm: collapse: one vector'); sys.exit(3)", "ended with 3: lvm: collapse: one vector", GateRefused),
        ("os.kill(os.getpid(), 9)", "ended with -9", RuntimeError),
    ],
)
def test_trainer_that_breaks_is_another_error_that_names_its_log(ends, says, kind, tmp_path):
    with pytest.raises(kind, match=says) as caught:
        run_trainer([sys.executable, "-c", f"import os, sys; {ends}"], tmp_path / "bge-v1.5-0", 1, relay(tmp_path))
    assert caught.type is kind, "only a kill is worth another attempt"
    assert str(tmp_path / "bge-v1.5-0.log") in str(caught.value)


@pytest.mark.parametrize(("attempt", "kept"), [(1, False), (2, True)])
def test_fresh_clears_an_earlier_run_but_not_what_the_attempt_before_left(attempt, kept, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(tasks.trainer_process, "run_trainer", lambda command, *_: started.append(command))
    monkeypatch.setattr(tasks.trainer_process, "task_run", SimpleNamespace(run_count=attempt))
    state = tmp_path / "lstm" / "training" / "state.safetensors"
    state.parent.mkdir(parents=True)
    state.touch()
    train_into(tmp_path / "lstm", "run", ["train", "data"], "epochs: 2\n", 1, fresh=True)
    assert state.exists() == kept
    config = tmp_path / "lstm.settings.yaml"
    assert config.read_text() == "epochs: 2\n"
    words = ["-m", "lvm", "train", "data", "--out", str(tmp_path / "lstm"), "--config", str(config), "--resume", "--until-stdin-closes"]
    assert started == [[sys.executable, *words]]


def test_trainer_gets_its_threads_and_not_the_flow_s_mlflow_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "the flow's")
    run_trainer([sys.executable, "-c", "import os; print(dict(os.environ))"], tmp_path / "lstm", 3, relay(tmp_path))
    words = (tmp_path / "lstm.log").read_text()
    assert "'OMP_NUM_THREADS': '3'" in words and "MLFLOW_RUN_ID" not in words


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server over the store in `folder`, killed at the end."""
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        until(lambda: answers(port))
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200)
    return False


@pytest.mark.slow
def test_training_goes_on_without_mlflow_and_its_whole_curve_arrives_later(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    out = tmp_path / "lstm"
    with ThreadPoolExecutor(1) as pool:
        with mlflow_server(tmp_path, port):
            experiment = connect(Workspace(root=tmp_path))
            run = MlflowClient().create_run(experiment).info.run_id
            relay = MetricsRelay(out / "training" / "metrics.jsonl", run)
            command = [*train_command(dataset, out, "--until-stdin-closes"), "--set=epochs=12"]
            training = pool.submit(run_trainer, command, out, 1, relay)
            until(lambda: len(MlflowClient().get_metric_history(run, "train/loss")) > 1)
        down = len(events(out))
        until(lambda: (out / "config.json").exists())
        assert not training.done(), "a finished training waits for the store"
        assert len(events(out)) > down + 3, "it learned while the store was down"
        with mlflow_server(tmp_path, port):
            training.result(timeout=120)
            found = [(point.step, point.value) for point in MlflowClient().get_metric_history(run, "train/loss")]
    assert found == [(event["step"], event["metrics"]["train/loss"]) for event in events(out) if "train/loss" in event["metrics"]]


def all_of(out: Path, processes: int) -> list[int]:
    """The processes of the training into `out`, once all are there and it is on its way."""
    until(lambda: len(events(out)) > 3)
    return until(lambda: found if len(found := list(trainers(out))) == processes else [])


def none_left(pids: list[int]) -> None:
    """Wait until none of the processes lives; end those that do."""
    try:
        until(lambda: not any(map(alive, pids)), seconds=20)
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


# One process, or one for each of two devices and the one that started them.
DEVICES = pytest.mark.parametrize(("device", "processes"), [("cpu", 1), ("cpu,cpu", 3)])


@pytest.mark.slow
@DEVICES
def test_trainer_ends_when_the_pipe_from_its_parent_closes(device, processes, dataset, tmp_path):
    out = tmp_path / "lstm"
    process = subprocess.Popen(train_command(dataset, out, "--until-stdin-closes", device=device), stdin=subprocess.PIPE)
    pids = []
    try:
        pids = all_of(out, processes)
        seen = len(events(out))
        until(lambda: len(events(out)) > seen + 3)
        assert process.poll() is None, "it goes on as long as the pipe is open"
        process.stdin.close()
        assert process.wait(timeout=20) != 0
    finally:
        process.kill()
        process.wait()
        none_left(pids)


@pytest.mark.slow
@DEVICES
def test_trainer_ends_when_its_parent_is_killed(device, processes, dataset, tmp_path):
    out = tmp_path / "lstm"
    words = "import sys; from pathlib import Path; "
    words += "from tasks.tracking.relay import MetricsRelay; from tasks.trainer_process import run_trainer; "
    words += "run_trainer(sys.argv[2:], Path(sys.argv[1]), 1, MetricsRelay(Path('none'), 'none'))"
    command = train_command(dataset, out, "--until-stdin-closes", device=device)
    parent = subprocess.Popen([sys.executable, "-c", words, str(out), *command], start_new_session=True)
    pids = []
    try:
        pids = [pid for pid in all_of(out, processes + 1) if pid != parent.pid]
        parent.kill()
        parent.wait()
    finally:
        parent.kill()
        none_left(pids)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["the one that started the others", "one of the others"])
def test_killed_process_of_several_ends_all_and_is_worth_another_attempt(which, dataset, tmp_path):
    out = tmp_path / "lstm"
    command = train_command(dataset, out, "--until-stdin-closes", device="cpu,cpu")
    killed = []

    def kill() -> None:
        killed.extend(sorted(all_of(out, 3)))
        os.kill(killed[0] if which == "the one that started the others" else killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RuntimeError, match="trainer ended with -9") as caught:
        run_trainer(command, out, 1, relay(tmp_path))
    assert caught.type is RuntimeError, "a kill is worth another attempt"
    killer.join(timeout=20)
    none_left(killed)


@pytest.mark.slow
def test_input_that_every_process_refuses_is_said_once(dataset, tmp_path):
    out = tmp_path / "lstm"
    (out / "training").mkdir(parents=True)
    command = train_command(dataset, out, device="cpu,cpu")
    with pytest.raises(InputError, match="holds a run already: give --resume") as caught:
        run_trainer(command, out, 1, relay(tmp_path))
    assert str(caught.value).count("holds a run already") == 1
