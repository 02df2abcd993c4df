"""A full disk during extraction, training and MLflow's writes: a clear sentence, nothing lost, and it goes on when there is space.

    sudo python -m bench.reliability.disk_full

Each case works on a small tmpfs, which needs Linux and root. It is too small from the start, or filled by another file at a
critical moment. Then the space is freed and the same command runs again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.reliability.corpus import small_corpus
from lvm.atomic_io import sha256_file
from lvm.reports.tables.table import Table

SETTINGS = ["--set=model.width=128", "--set=epochs=8", "--set=threads=1"]


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a tmpfs of that size at `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    """Use up the free space."""
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 4096)


def run(*words: object) -> tuple[int, str]:
    """Run a module of this checkout; returns its exit code and the last line of its standard error."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, env=environment())
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def environment() -> dict[str, str]:
    """The environment with its own Prefect home."""
    home = Path(tempfile.gettempdir()) / "disk-full"
    home.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "MLFLOW_TRACKING"))}
    return kept | {"PREFECT_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until `condition` holds; `RuntimeError` when the process ends first."""
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before the disk was filled")
        time.sleep(0.02)


def extraction(folder: Path, corpus: Path) -> list[str]:
    """Extract to a disk that is too small for the dataset."""
    with disk(folder / "small", 1) as place:
        (place / "earlier").write_text("kept")
        words = ("lvm", "extract", "--source", corpus, "--out", place / "data", "--encoder", "minilm")
        code, said = run(*words)
        kept = (place / "earlier").read_text() == "kept"
        accepted = run("lvm", "diagnose", place / "data")[0] == 0
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        again = run(*words)[0]
        return ["extraction", str(code), said, "intact" if kept and not accepted else "BROKEN", f"exit {again}"]


def training(folder: Path, dataset: Path) -> list[str]:
    """Fill the disk once a state is saved; the finished model must be the same as that of an undisturbed training."""
    words = ("lvm", "train", dataset, "--arch", "lstm", "--device", "cpu", *SETTINGS)
    run(*words, "--out", folder / "undisturbed")
    with disk(folder / "run", 128) as place:
        out = place / "lstm"
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words), "--out", str(out)], stderr=subprocess.PIPE, env=environment()
        )  # fmt: skip
        wait_for((out / "training" / "state.safetensors").exists, process)
        fill(place)
        said = process.communicate()[1].decode().strip().splitlines()[-1]
        state = out / "training" / "state.safetensors"
        before = sha256_file(state)
        refused = run("lvm", "validate", dataset, "--model", out)[0] == 2
        (place / "filler").unlink()
        kept = sha256_file(state) == before and refused
        again = run(*words, "--out", out, "--resume")[0]
        same = sha256_file(out / "model.safetensors") == sha256_file(folder / "undisturbed" / "model.safetensors")
        ended = f"exit {again}, {'the same weights as undisturbed' if same else 'OTHER weights'}"
        return ["training", str(process.returncode), said, "intact" if kept else "BROKEN", ended]


def flow(folder: Path, corpus: Path, moment: str, ready: Callable[[Path], bool], frees: Callable[[Path], bool] | None) -> list[str]:
    """Fill MLflow's disk when the flow is `ready`, and free it when `frees` is true, or after the flow has failed."""
    root = folder / moment.replace(" ", "-")
    words = ["flows.retrain_all", "--source", corpus, "--device", "cpu", "--decoder", "none", "--root", root, *SETTINGS]
    with disk(root / "mlruns", 128) as place, (folder / "words").open("w+") as log:
        process = subprocess.Popen([sys.executable, "-m", *map(str, words)], stdout=log, stderr=log, env=environment())
        wait_for(lambda: ready(root), process)
        fill(place)
        if frees is None:
            process.wait()
        else:
            wait_for(lambda: frees(root), process)
        (place / "filler").unlink()
        code = process.wait()
        log.seek(0)
        said = [line for line in log.read().splitlines() if "MLflow does not accept" in line or line.startswith("retrain-all:")]
        again = run(*words)[0]
        champion = (root / "models" / "champion" / "config.json").exists()
        return [f"MLflow, {moment}", str(code), (said or [""])[-1], "intact" if champion else "BROKEN", f"exit {again}"]


def trained(root: Path, name: str) -> int:
    """How many of the three models have their file `name`."""
    return len(list((root / "runs").glob(f"*/{name}")))


def main() -> None:
    """Run the four cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        corpus = small_corpus(folder / "addresses.jsonl", 48, 30)
        run("lvm", "extract", "--source", corpus, "--out", folder / "data")
        begun: Callable[[Path], bool] = lambda root: trained(root, "training/metrics.jsonl") == 3  # noqa: E731
        done: Callable[[Path], bool] = lambda root: trained(root, "config.json") == 3  # noqa: E731
        rows = []
        cases: list[Callable[[], list[str]]] = [
            lambda: extraction(folder, corpus),
            lambda: training(folder, folder / "data"),
            lambda: flow(folder, corpus, "full during the training, then freed", begun, done),
            lambda: flow(folder, corpus, "full from the end of the training on", done, None),
        ]
        for case in cases:
            rows.append(case())
            print(rows[-1], flush=True)
    print(Table("A full disk", ["during", "exit", "said", "earlier files", "run again with space"], rows).markdown())


if __name__ == "__main__":
    main()
