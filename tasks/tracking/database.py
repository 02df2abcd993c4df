"""MLflow's database, created atomically."""

import logging
from pathlib import Path

from filelock import FileLock
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from lvm.atomic_io import replacing


def create_database(file: Path, artifacts: Path) -> None:
    """Create the database at `file` where there is none.

    MLflow creates its tables in many steps. If it is killed between two of them, it refuses that database for ever. So the
    tables are created in another file, which is then renamed. Of concurrent processes, one creates it and the others wait.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        if not file.exists():
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it would log each table
            with replacing(file) as temporary:
                SqlAlchemyStore(f"sqlite:///{temporary}", artifacts.as_uri())
