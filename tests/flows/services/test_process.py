"""Services as processes: known for certain, ended with all that they started; ports that are free."""

import os
import socket
import sys
from pathlib import Path

import psutil
import pytest

from flows.services.process import HOST, ServiceFailed, free_port, last_words, record, running, start, stop
from flows.services.waiting import wait
from lvm.atomic_io import write_text
from lvm.errors import InputError
from tests.support.processes import alive, until

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]


def test_service_runs_detached_with_its_output_in_its_log_until_it_is_stopped(tmp_path):
    service = start(tmp_path / "services", "one", None, SLEEP, os.environ, tmp_path)
    until(lambda: last_words(service.log) == "ready")
    assert running(tmp_path / "services", "one") == service
    assert os.getsid(service.pid) == service.pid != os.getsid(0)
    assert psutil.Process(service.pid).cwd() == str(tmp_path)
    assert stop(tmp_path / "services", "one", 10) is True
    assert not alive(service.pid)
    assert running(tmp_path / "services", "one") is None
    assert stop(tmp_path / "services", "one", 10) is False


def test_another_process_of_the_same_pid_is_neither_taken_for_the_service_nor_stopped(tmp_path):
    stranger = start(tmp_path, "stranger", None, SLEEP, os.environ, tmp_path)
    try:
        write_text(record(tmp_path, "one"), stranger.model_copy(update={"name": "one", "started": stranger.started - 60}).model_dump_json())
        assert stop(tmp_path, "one", 10) is False
        assert alive(stranger.pid)
        assert not record(tmp_path, "one").exists()
    finally:
        assert stop(tmp_path, "stranger", 10)


def test_what_a_service_started_ends_with_it_though_deaf_and_in_a_session_of_its_own(tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True).wait()"
    service = start(tmp_path, "one", None, [sys.executable, "-c", parent], os.environ, tmp_path)
    until(lambda: last_words(service.log) == "deaf")
    (child,) = psutil.Process(service.pid).children()
    assert stop(tmp_path, "one", 0.5) is True
    assert not alive(service.pid) and not alive(child.pid)


def test_service_that_ends_while_it_starts_is_named_with_its_last_words_and_its_log(tmp_path):
    service = start(tmp_path, "one", None, [sys.executable, "-c", "raise SystemExit('no such database')"], os.environ, tmp_path)
    with pytest.raises(ServiceFailed, match=rf"^one ended while it started: no such database \(whole log: {tmp_path}/one.log\)$"):
        wait(service, lambda: False)
    assert running(tmp_path, "one") is None


def test_taken_port_is_refused_when_asked_for_and_avoided_otherwise(socket_enabled, tmp_path: Path):
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf"^MLFLOW_PORT: port {taken} of {HOST} is in use: give another one, or unset MLFLOW_PORT"):
            free_port(taken, 5000, "MLFLOW_PORT")
        assert free_port(None, taken, "MLFLOW_PORT") not in (taken, 0)
    assert free_port(taken, 5000, "MLFLOW_PORT") == taken
    assert free_port(None, taken, "MLFLOW_PORT") == taken
