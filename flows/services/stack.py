"""The services of a checkout: the order in which they start and stop, and the files that describe them."""

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from flows.services import prefect_api
from flows.services.commands import ALERT, DEPLOY, WORK, mlflow_server, prefect_client, prefect_server
from flows.services.process import Service, ServiceFailed, free_port, last_words, running, start, stop
from flows.services.waiting import answers, wait
from lvm.atomic_io import write_text
from lvm.errors import InputError
from tasks.tracking.database import create_database

ORDER = ("prefect", "mlflow", "worker")
"""Order of starting. They stop in reverse order: the worker before the server to which it reports."""

USUAL_PORTS = {"prefect": 4200, "mlflow": 5000}
STOP_SECONDS = 30.0
"""After which a service that was told to end is killed."""

CANCEL_SECONDS = 120.0
"""For flow runs to end. Prefect gives them 30 s to end by themselves and then kills them with their trainers."""


class Stack:
    """The services of one checkout, the folder with prefect.yaml. Their files are in `.prefect/` there."""

    def __init__(self, checkout: Path, ports: Mapping[str, int | None]) -> None:
        self.checkout, self.ports = checkout, ports
        self.folder = checkout / ".prefect"
        self.home = self.folder / "home"
        self.store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{checkout / 'mlruns' / 'mlflow.db'}"

    def up(self) -> dict[str, str]:
        """Start what is not running, deploy what prefect.yaml lists, and return the addresses as `_write_addresses` does.

        On any failure, the services that this call has started are stopped again. Raises `InputError` when a
        requested port is taken, `ServiceFailed` when a service does not start or a deployment fails.
        """
        with self._locked(), self._all_or_nothing() as started:
            ports = {name: self._port(name) for name in USUAL_PORTS}  # all ports are checked before anything starts
            server = self._start("prefect", ports["prefect"], started, prefect_server(self.home, ports["prefect"]))
            self._start_mlflow(ports["mlflow"], started)
            wait(server, lambda: answers(f"{prefect_api.api(server)}/health"))
            new_pool = prefect_api.prepare_pool(server)
            if new_pool or "prefect" in started:
                stop(self.folder, "worker", STOP_SECONDS)  # an old worker serves a pool that is gone, and would fail
                prefect_api.close_lost_runs(server)
            worker = self._start("worker", None, started, prefect_client(self.home, server, self.store, self._mlflow_ui(), WORK))
            self._deploy(server)
            wait(worker, lambda: prefect_api.worker_polls(server, worker))
            return self._write_addresses()

    def ui(self) -> dict[str, str]:
        """Start MLflow alone, unless it is running; returns the addresses of what is running, as `_write_addresses` does."""
        with self._locked(), self._all_or_nothing() as started:
            self._start_mlflow(self._port("mlflow"), started)
            return self._write_addresses()

    def down(self) -> list[str]:
        """Cancel running flows, then stop every service, the worker first; returns the names of those that were running."""
        with self._locked():
            server = running(self.folder, "prefect")
            stopped: list[str] = []
            try:
                if server and running(self.folder, "worker") and answers(f"{prefect_api.api(server)}/health"):
                    prefect_api.cancel_runs(server, CANCEL_SECONDS)
            finally:
                stopped += [name for name in reversed(ORDER) if stop(self.folder, name, STOP_SECONDS)]
                (self.folder / "env").unlink(missing_ok=True)
            return stopped

    def deployed(self) -> list[str]:
        """Names of the deployments, such as `retrain-all/local`; empty without a server."""
        server = running(self.folder, "prefect")
        return prefect_api.deployed(server) if server else []

    def _port(self, name: str) -> int:
        """The port that a service listens on, or will."""
        asked, service = self.ports[name], running(self.folder, name)
        variable = f"{name.upper()}_PORT"
        if service is None or service.port is None:
            return free_port(asked, USUAL_PORTS[name], variable)
        if asked not in (None, service.port):
            raise InputError(f"{variable}: {name} is running on port {service.port}: run 'make down' before you change it to {asked}")
        return service.port

    def _start_mlflow(self, port: int, started: list[str]) -> None:
        """Start MLflow's server on our store, unless MLFLOW_TRACKING_URI names a server."""
        if self.store.startswith(("http://", "https://")):
            if not answers(f"{self.store.rstrip('/')}/health"):
                raise InputError(f"MLFLOW_TRACKING_URI: nothing answers at {self.store}: start it, or unset the variable to start one here")
            return
        mlruns = self.checkout / "mlruns"
        if self.store == f"sqlite:///{mlruns / 'mlflow.db'}":
            create_database(mlruns / "mlflow.db", mlruns / "artifacts")
        mlflow = self._start("mlflow", port, started, mlflow_server(self.store, mlruns / "artifacts", port))
        wait(mlflow, lambda: answers(f"{mlflow.address}/health"))

    def _start(self, name: str, port: int | None, started: list[str], how: tuple[list[str], Mapping[str, str]]) -> Service:
        """The running service, or a newly started one, whose name is added to `started`."""
        found = running(self.folder, name)
        if found is None:
            started.append(name)
            found = start(self.folder, name, port, *how, self.checkout)
        return found

    def _deploy(self, server: Service) -> None:
        """Deploy what prefect.yaml lists, and the automation that notifies of a breach."""
        log = self.folder / "deploy.log"
        with log.open("wb") as file:
            for what, words in {"prefect.yaml": DEPLOY, "automations/nightly-breach.yaml": ALERT}.items():
                command, environment = prefect_client(self.home, server, self.store, self._mlflow_ui(), words)
                done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=self.checkout)
                if done.returncode:
                    raise ServiceFailed(f"{what} cannot be deployed: {last_words(log)} (whole log: {log})")

    def _mlflow_ui(self) -> str:
        """Address of MLflow's server: ours, or the one in MLFLOW_TRACKING_URI."""
        mlflow = running(self.folder, "mlflow")
        return mlflow.address if mlflow else self.store

    def _write_addresses(self) -> dict[str, str]:
        """Write the addresses to `.prefect/env` as shell exports; returns them by variable name."""
        server = running(self.folder, "prefect")
        addresses = {"PREFECT_HOME": str(self.home), "MLFLOW_TRACKING_URI": self._mlflow_ui()}
        if server:
            addresses["PREFECT_API_URL"] = prefect_api.api(server)
        write_text(self.folder / "env", exports(addresses))
        return addresses

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let two calls in one checkout take turns."""
        with FileLock(self.folder / "lock"):
            yield

    @contextmanager
    def _all_or_nothing(self) -> Iterator[list[str]]:
        """Yield a list for the names of started services; stop these when the block raises."""
        started: list[str] = []
        try:
            yield started
        except BaseException:
            for name in reversed(started):
                stop(self.folder, name, STOP_SECONDS)
            raise


def exports(variables: Mapping[str, str]) -> str:
    """Variables as lines of a file that a shell reads with `. FILE`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
