"""The environment of the services, and the addresses that they leave."""

import subprocess
from pathlib import Path

from flows.services.commands import prefect_client
from flows.services.process import Service
from flows.services.stack import exports


def test_services_know_their_own_prefect_and_store_whatever_the_shell_says(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example/api")
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_PROFILE", "work")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:////elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://elsewhere.example")
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    server = Service(name="prefect", pid=1, started=0, port=4200, log=Path("log"))
    _, environment = prefect_client(Path("/home"), server, "sqlite:////store.db", "http://127.0.0.1:5000", ["deploy"])
    ours = {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "PREFECT_HOME": "/home", "MLFLOW_TRACKING_URI": "sqlite:////store.db"}
    ours |= {"LVM_MLFLOW_UI": "http://127.0.0.1:5000"}
    assert {name: environment[name] for name in ours} == ours
    assert not {"PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_SERVER_DATABASE_CONNECTION_URL"} & set(environment)
    assert environment["PREFECT_LOGGING_LEVEL"] == "DEBUG"


def test_a_shell_reads_the_addresses_as_they_are_whatever_they_hold(tmp_path):
    home = "/my checkout's; echo $HOME/`id`"
    (tmp_path / "env").write_text(exports({"PREFECT_HOME": home, "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}))
    shown = subprocess.run(
        ["sh", "-c", '. ./env; printf "%s\\n" "$PREFECT_HOME" "$MLFLOW_TRACKING_URI"'], capture_output=True, text=True, cwd=tmp_path
    )
    assert shown.stdout.splitlines() == [home, "http://127.0.0.1:5000"]
