"""`python -m flows.services up|ui|down`, run in the checkout."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.services.process import ServiceFailed
from lvm.errors import InputError

if TYPE_CHECKING:
    from flows.services.stack import Stack

app = typer.Typer(add_completion=False, help="Services for the deployments. Their logs are in .prefect/.")
PrefectPort = Annotated[int | None, typer.Option(envvar="PREFECT_PORT", min=1, max=65535, help="4200 by default, or a free one.")]
MlflowPort = Annotated[int | None, typer.Option(envvar="MLFLOW_PORT", min=1, max=65535, help="5000 by default, or a free one.")]


@app.command()
def up(prefect_port: PrefectPort = None, mlflow_port: MlflowPort = None) -> None:
    """Start a Prefect server, MLflow and a worker where they are not running, wait until they answer, and deploy the flows."""
    with stack(prefect_port, mlflow_port) as services:
        addresses = services.up()
        print(f"Prefect   {addresses['PREFECT_API_URL'].removesuffix('/api')}")
        print(f"MLflow    {addresses['MLFLOW_TRACKING_URI']}")
        print(f"Deployed  {', '.join(services.deployed())}")
        print("Next: . .prefect/env && .venv/bin/prefect deployment run 'retrain-all/local' --watch")


@app.command()
def ui(mlflow_port: MlflowPort = None) -> None:
    """Start MLflow alone, unless it is running."""
    with stack(None, mlflow_port) as services:
        print(f"MLflow    {services.ui()['MLFLOW_TRACKING_URI']}")


@app.command()
def down() -> None:
    """Cancel running flows, then stop worker, MLflow and Prefect server."""
    with stack(None, None) as services:
        stopped = services.down()
        print(f"Stopped {', '.join(stopped)}" if stopped else "Nothing is running")


@contextmanager
def stack(prefect_port: int | None, mlflow_port: int | None) -> "Iterator[Stack]":
    """The services of this checkout. Errors end the process with one sentence."""
    checkout = Path().resolve()
    try:
        if not (checkout / "prefect.yaml").is_file():
            raise InputError(f"there is no prefect.yaml in {checkout}: run this in the checkout")
        # Set before Prefect is imported, so that the user's own profile is neither read nor written.
        home = checkout / ".prefect" / "home"
        home.mkdir(parents=True, exist_ok=True)
        if os.environ.get("PREFECT_HOME") == str(home):  # the shell has read .prefect/env: this is our own MLflow
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ["PREFECT_HOME"] = str(home)
        from flows.services.stack import Stack

        yield Stack(checkout, {"prefect": prefect_port, "mlflow": mlflow_port})
    except (InputError, ServiceFailed) as error:
        print(f"flows.services: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    app()
