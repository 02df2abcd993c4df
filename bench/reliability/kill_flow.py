"""Kill the whole flow at a random moment and start it again: nothing may be left over, and the champion must be the same.

    python -m bench.reliability.kill_flow --kills 20

`python -m flows.retrain_all` runs on a small corpus with its own Prefect home: once undisturbed, then repeatedly in new
folders, each time killed with SIGKILL after a random part of the undisturbed duration and started again until it ends. Then
the script counts leftover processes, device leases that are still held, and runs that never ended in MLflow or Prefect.
Nothing is decoded: decoding changes nothing about the champion and would take longer than everything else.
"""

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from mlflow import MlflowClient

from bench.reliability.corpus import small_corpus
from lvm.atomic_io import sha256_file
from lvm.reports.tables.table import Table

# Enough for the models to pass their gates on so few documents.
SETTINGS = ["model.width=128", "epochs=8", "threads=1"]


class Place:
    """A folder for one flow: its workspace, its Prefect home and its device leases."""

    def __init__(self, folder: Path, corpus: Path) -> None:
        self.root, self.home, self.corpus = folder / "root", folder / "home", corpus
        (self.home / "tmp").mkdir(parents=True)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the flow in its own process."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "MLFLOW_TRACKING"))}
        environment |= {"PREFECT_HOME": str(self.home), "TMPDIR": str(self.home / "tmp"), "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, "-m", "flows.retrain_all", "--source", str(self.corpus), "--device", "cpu", "--decoder", "none"]
        words += ["--root", str(self.root), *(f"--set={setting}" for setting in SETTINGS)]
        with (self.home / "output.log").open("ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, env=environment)

    def champion(self) -> str:
        """Digest of the champion's weights."""
        return sha256_file(self.root / "models" / "champion" / "model.safetensors")

    def processes(self) -> list[psutil.Process]:
        """Processes of the flows in this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PREFECT_HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def held_leases(self) -> int:
        """Number of device leases that are held."""
        held = 0
        for file in (self.home / "tmp").glob("lvm-leases-*/*.lock"):
            try:
                FileLock(file).acquire(blocking=False).lock.release()
            except Timeout:
                held += 1
        return held

    def mlflow_running(self) -> int:
        """Number of MLflow runs that have not ended."""
        client = MlflowClient(tracking_uri=f"sqlite:///{self.root / 'mlruns' / 'mlflow.db'}")
        experiments = [e.experiment_id for e in client.search_experiments()]
        return sum(run.info.status in ("RUNNING", "SCHEDULED") for run in client.search_runs(experiments))

    def prefect_running(self) -> int:
        """Number of flow and task runs in Prefect's database that have not ended."""
        ended = "('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"
        with sqlite3.connect(self.home / "prefect.db") as database:
            counts = [database.execute(f"select count(*) from {t} where state_type not in {ended}") for t in ("flow_run", "task_run")]
            return sum(count.fetchone()[0] for count in counts)


def main() -> None:
    """Run, kill, run again, count what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        corpus = small_corpus(Path(folder) / "addresses.jsonl", 48, 30)
        undisturbed = Place(Path(folder) / "undisturbed", corpus)
        started = time.monotonic()
        if undisturbed.start().wait() != 0:
            raise SystemExit((undisturbed.home / "output.log").read_text()[-3000:])
        length = time.monotonic() - started
        print(f"undisturbed: {length:.0f} s", flush=True)
        for number in range(kills):
            place = Place(Path(folder) / str(number), corpus)
            process, moment = place.start(), random.uniform(0, length)
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            counts["kills"] += process.wait() == -signal.SIGKILL
            time.sleep(2)  # its trainers notice that the pipe has closed
            left = len(place.processes())
            counts["flows that left a process of their own behind until the next start"] += left > 0
            ended = place.start().wait()
            time.sleep(2)
            counts["flows that ended well when started again"] += ended == 0
            same = ended == 0 and place.champion() == undisturbed.champion()
            counts["the same champion"] += same
            found = {
                "orphan processes after it": len(place.processes()),
                "leases still held": place.held_leases(),
                "MLflow runs left RUNNING": place.mlflow_running(),
                "Prefect runs left RUNNING": place.prefect_running(),
            }
            for name, count in found.items():
                counts[name] += count
            print(
                f"{number + 1}: killed after {moment:.0f} s, then exit {ended}, {'same' if same else 'OTHER'} champion; {found}", flush=True
            )
    print(Table(f"The flow killed {kills} times", ["what was found", "number"], [[n, str(c)] for n, c in counts.items()]).markdown())
    good = ("kills", "flows that", "the same")
    if any(c for n, c in counts.items() if not n.startswith(good)) or counts["the same champion"] < kills:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
