"""Workspaces with real MLflow stores. MLflow takes seconds to create a database, so one is created and then copied."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.tracking.database import create_database
from tasks.tracking.runs import connect
from tasks.workspace import Workspace


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Workspace]:
    """Makes a workspace in a folder, with an empty MLflow database of its own."""
    empty = tmp_path_factory.mktemp("database") / "mlflow.db"
    create_database(empty, empty.parent / "artifacts")

    def make(root: Path) -> Workspace:
        workspace = Workspace(root=root)
        workspace.mlruns.mkdir(parents=True)
        shutil.copy(empty, workspace.mlruns / "mlflow.db")
        connect(workspace)
        return workspace

    return make


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The module's workspace, with the store that a flow has where MLFLOW_TRACKING_URI is not set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield make_workspace(tmp_path_factory.mktemp("workspace"))
