"""MLflow's own database, which is there whole or not at all."""

import logging
from pathlib import Path

from filelock import FileLock
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from lvm.atomic_io import replacing


def create_database(file: Path, artifacts: Path) -> None:
    """Create the database at `file` where there is none.

    MLflow makes its tables in many steps, and refuses for ever a database in which it was killed between two of them. So it makes
    them in another file, which then takes the name. Of several processes that come at once, one does it and the others wait.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        if not file.exists():
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # that it makes tables is no news to anybody
            with replacing(file) as temporary:
                SqlAlchemyStore(f"sqlite:///{temporary}", artifacts.as_uri())
