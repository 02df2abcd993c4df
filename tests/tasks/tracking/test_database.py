"""A database that a kill left half made must not stand where MLflow would refuse it for ever."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.tracking.database import create_database


def usable(file: Path) -> bool:
    return MlflowClient(tracking_uri=f"sqlite:///{file}").create_experiment("probe") != ""


def test_database_is_made_once_and_what_is_there_stays(tmp_path):
    file = tmp_path / "mlruns" / "mlflow.db"
    create_database(file, tmp_path / "artifacts")
    assert usable(file)
    create_database(file, tmp_path / "artifacts")
    assert MlflowClient(tracking_uri=f"sqlite:///{file}").get_experiment_by_name("probe") is not None


def test_nothing_is_said_of_it(tmp_path):
    words = f"from pathlib import Path; from tasks.tracking.database import create_database; place = Path({str(tmp_path)!r}); "
    words += "create_database(place / 'mlflow.db', place / 'artifacts')"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_several_at_once_make_one(tmp_path):
    file = tmp_path / "mlflow.db"
    makers = [threading.Thread(target=create_database, args=(file, tmp_path / "artifacts")) for _ in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert usable(file) and not list(tmp_path.glob("*.tmp"))


@pytest.mark.slow
def test_killed_at_any_moment_it_is_whole_or_absent_and_the_next_makes_it(tmp_path):
    words = "import sys; from pathlib import Path; from tasks.tracking.database import create_database; print(1, flush=True); "
    words += "create_database(Path(sys.argv[1]), Path(sys.argv[1]).parent / 'artifacts')"
    absent = 0
    for number, seconds in enumerate((0.1, 0.3, 0.5, 0.8, 1.2)):
        file = tmp_path / str(number) / "mlflow.db"
        maker = subprocess.Popen([sys.executable, "-c", words, str(file)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert maker.stdout and maker.stdout.readline()  # what takes long before is the import
        time.sleep(seconds)
        os.kill(maker.pid, signal.SIGKILL)
        maker.wait()
        absent += not file.exists()
        create_database(file, file.parent / "artifacts")
        assert usable(file)
    assert absent, "none was killed halfway"
