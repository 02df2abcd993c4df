"""A real MLflow store for the stages."""

from collections.abc import Iterator

import pytest

from tasks.tracking.runs import connect
from tasks.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with a store of its own, as a flow makes one where MLFLOW_TRACKING_URI is not set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        workspace = Workspace(root=tmp_path_factory.mktemp("workspace"))
        connect(workspace)
        yield workspace
