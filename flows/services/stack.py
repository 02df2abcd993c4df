"""The services of a checkout: in which order they come and go, and what is left behind about them."""

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
"""In which they start. They stop the other way round: the worker before the server to which it reports."""

USUAL_PORTS = {"prefect": 4200, "mlflow": 5000}
STOP_SECONDS = 30.0
"""Until one that was asked to end is killed."""

CANCEL_SECONDS = 120.0
"""For flow runs to end. Prefect gives them 30 s to do so by themselves and then kills them, their trainers with them."""


class Stack:
    """The services of one checkout, the folder with prefect.yaml. What they leave is in `.prefect/` there."""

    def __init__(self, checkout: Path, ports: Mapping[str, int | None]) -> None:
        self.checkout, self.ports = checkout, ports
        self.folder = checkout / ".prefect"
        self.home = self.folder / "home"
        self.store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{checkout / 'mlruns' / 'mlflow.db'}"

    def up(self) -> dict[str, str]:
        """Start what does not run, deploy what prefect.yaml lists, and return the addresses as `_leave_addresses` does.

        Whatever fails, the services that this call started are stopped again. Raises `InputError` when a
        port that was asked for is taken, `ServiceFailed` when a service does not come up or cannot deploy.
        """
        with self._alone(), self._all_or_nothing() as begun:
            ports = {name: self._port(name) for name in USUAL_PORTS}  # all are looked at before anything starts
            server = self._begin("prefect", ports["prefect"], begun, prefect_server(self.home, ports["prefect"]))
            self._begin_mlflow(ports["mlflow"], begun)
            wait(server, lambda: answers(f"{prefect_api.api(server)}/health"))
            new_pool = prefect_api.prepare_pool(server)
            if new_pool or "prefect" in begun:
                stop(self.folder, "worker", STOP_SECONDS)  # one that is left over works for what is gone, and ends over it
                prefect_api.close_lost_runs(server)
            worker = self._begin("worker", None, begun, prefect_client(self.home, server, self.store, self._mlflow_ui(), WORK))
            self._deploy(server)
            wait(worker, lambda: prefect_api.worker_polls(server, worker))
            return self._leave_addresses()

    def ui(self) -> dict[str, str]:
        """Start MLflow alone, when it does not run; returns the addresses of whatever runs, as `_leave_addresses` does."""
        with self._alone(), self._all_or_nothing() as begun:
            self._begin_mlflow(self._port("mlflow"), begun)
            return self._leave_addresses()

    def down(self) -> list[str]:
        """Stop what runs, the worker first, its flow runs cancelled before; returns the names of what ran."""
        with self._alone():
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
        """What can be run now, as `retrain-all/local`; nothing without a server."""
        server = running(self.folder, "prefect")
        return prefect_api.deployed(server) if server else []

    def _port(self, name: str) -> int:
        """Where a service runs or is going to."""
        asked, service = self.ports[name], running(self.folder, name)
        variable = f"{name.upper()}_PORT"
        if service is None or service.port is None:
            return free_port(asked, USUAL_PORTS[name], variable)
        if asked not in (None, service.port):
            raise InputError(f"{variable}: {name} runs on port {service.port} already; 'make down' before it can have {asked}")
        return service.port

    def _begin_mlflow(self, port: int, begun: list[str]) -> None:
        """MLflow's server on our store; none where MLFLOW_TRACKING_URI names a server already."""
        if self.store.startswith(("http://", "https://")):
            if not answers(f"{self.store.rstrip('/')}/health"):
                raise InputError(f"MLFLOW_TRACKING_URI: nothing answers at {self.store}; start it, or unset the variable to have it here")
            return
        mlruns = self.checkout / "mlruns"
        if self.store == f"sqlite:///{mlruns / 'mlflow.db'}":
            create_database(mlruns / "mlflow.db", mlruns / "artifacts")
        mlflow = self._begin("mlflow", port, begun, mlflow_server(self.store, mlruns / "artifacts", port))
        wait(mlflow, lambda: answers(f"{mlflow.address}/health"))

    def _begin(self, name: str, port: int | None, begun: list[str], how: tuple[list[str], Mapping[str, str]]) -> Service:
        """The service, as it runs or newly started; `begun` is told of the latter."""
        found = running(self.folder, name)
        if found is None:
            begun.append(name)
            found = start(self.folder, name, port, *how, self.checkout)
        return found

    def _deploy(self, server: Service) -> None:
        """Deploy what prefect.yaml lists, which becomes what the file says, and the automation that tells of a breach."""
        log = self.folder / "deploy.log"
        with log.open("wb") as file:
            for what, words in {"prefect.yaml": DEPLOY, "automations/nightly-breach.yaml": ALERT}.items():
                command, environment = prefect_client(self.home, server, self.store, self._mlflow_ui(), words)
                done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=self.checkout)
                if done.returncode:
                    raise ServiceFailed(f"{what} cannot be deployed: {last_words(log)} (whole log: {log})")

    def _mlflow_ui(self) -> str:
        """Address of MLflow's server: ours, or the one that MLFLOW_TRACKING_URI names."""
        mlflow = running(self.folder, "mlflow")
        return mlflow.address if mlflow else self.store

    def _leave_addresses(self) -> dict[str, str]:
        """Write the addresses as a shell's exports to `.prefect/env`; returns them by the names of these variables."""
        server = running(self.folder, "prefect")
        addresses = {"PREFECT_HOME": str(self.home), "MLFLOW_TRACKING_URI": self._mlflow_ui()}
        if server:
            addresses["PREFECT_API_URL"] = prefect_api.api(server)
        write_text(self.folder / "env", exports(addresses))
        return addresses

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two calls in one checkout take turns."""
        with FileLock(self.folder / "lock"):
            yield

    @contextmanager
    def _all_or_nothing(self) -> Iterator[list[str]]:
        """Stop the services that the block has begun when it raises."""
        begun: list[str] = []
        try:
            yield begun
        except BaseException:
            for name in reversed(begun):
                stop(self.folder, name, STOP_SECONDS)
            raise


def exports(variables: Mapping[str, str]) -> str:
    """Variables as lines that a shell reads with `. FILE`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
