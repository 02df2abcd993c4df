"""Kills during the writing of training states, checkpoints and datasets.

    python -m bench.reliability.kill_writes --kills 1000

A forked process writes one file set after the other until it is killed with SIGKILL at a random moment. What it
leaves is then opened as a later stage would open it. It must be complete and equal to what was to be written, or be
refused as unfinished; "unreadable" and "half accepted" must stay 0. Half of the kills hit a training's state and
exported checkpoints, half hit datasets of several shards. Every twentieth interrupted dataset is also finished.
"""

import argparse
import itertools
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file

from bench.reliability.corpus import small_corpus
from lvm.config import train_config
from lvm.data import shards
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.extract import extract
from lvm.errors import GateRefused, InputError
from lvm.models.checkpoint import TrainingRecord, load_checkpoint, save_checkpoint
from lvm.reports.tables.table import Table
from lvm.training.trainer import Trainer

CPU = torch.device("cpu")


def killed(write: Callable[[], None], seconds: float) -> None:
    """Run `write` in a forked process and kill it after `seconds`."""
    child = os.fork()
    if child == 0:
        try:
            write()
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WTERMSIG(status) != signal.SIGKILL:
        raise RuntimeError("the writing process ended by itself")


def took(write: Callable[[], object]) -> float:
    """Seconds that `write` takes."""
    started = time.perf_counter()
    write()
    return time.perf_counter() - started


def states(dataset: Dataset, folder: Path, kills: int) -> Counter[str]:
    """Kill a process that replaces a training's state and exports checkpoints."""
    config = train_config("lstm", dataset.dim, ["model.width=128", "epochs=1", "threads=1"])
    trainer = Trainer(config, dataset, folder / "run", CPU)
    trainer.run()
    made = load_checkpoint(folder / "run", CPU)
    golden = load_file(folder / "run" / "golden.safetensors")["inputs"]
    weights = [w.clone() for w in trainer.weights]

    def export(out: Path) -> None:
        c = made.config
        record = TrainingRecord(c.train, c.recipe, c.dataset_digest, c.best, c.history, c.gradient_shares, c.splits)
        save_checkpoint(out, made.model, golden, made.baselines, made.ood, record, "card")

    def write() -> None:
        for number in itertools.count():
            trainer.save_state()
            export(folder / "exported" / str(number))

    seconds = took(trainer.save_state) + took(lambda: export(folder / "probe"))
    expected = made.config.files["model.safetensors"]
    outcomes: Counter[str] = Counter()
    for _ in track(range(kills), "states and checkpoints"):
        killed(write, random.uniform(0, 2 * seconds))
        try:
            trainer.resume()
            whole = all(torch.equal(a, b) for a, b in zip(trainer.weights, weights, strict=True))
            outcomes["state: whole" if whole else "state: half accepted"] += 1
        except InputError as error:
            outcomes[f"state: unreadable ({error})"] += 1
        for out in (folder / "exported").glob("*"):
            finished = (out / "config.json").exists()
            try:
                same = load_checkpoint(out, CPU).config.files["model.safetensors"] == expected
                outcomes["checkpoint: whole" if finished and same else "checkpoint: half accepted"] += 1
            except (InputError, GateRefused) as error:
                outcomes[f"checkpoint: unreadable ({error})" if finished else "checkpoint: not finished, refused"] += 1
        shutil.rmtree(folder / "exported", ignore_errors=True)
    return outcomes


def datasets(corpus: Path, encoder: Encoder, folder: Path, kills: int) -> Counter[str]:
    """Kill a process that extracts the corpus again and again, into shards of a few rows."""
    shards.SHARD_ROWS = 8
    reference = folder / "reference"
    seconds = took(lambda: extract([str(corpus)], reference, encoder))
    expected = open_dataset(reference)

    def write() -> None:
        for number in itertools.count():
            extract([str(corpus)], folder / "made" / str(number), encoder)

    def outcome(out: Path) -> str:
        finished = (out / "manifest.json").exists()
        try:
            found = open_dataset(out)
        except InputError as error:
            return f"dataset: unreadable ({error})" if finished else "dataset: not finished, refused"
        same = found.manifest.digest == expected.manifest.digest and np.allclose(found.vectors, expected.vectors, atol=1e-5)
        return "dataset: whole" if finished and same else "dataset: half accepted"

    outcomes: Counter[str] = Counter()
    for kill in track(range(kills), "datasets"):
        killed(write, random.uniform(0, 1.5 * seconds))
        for out in (folder / "made").glob("*"):
            found = outcome(out)
            outcomes[found] += 1
            if kill % 20 == 0 and found == "dataset: not finished, refused":
                extract([str(corpus)], out, encoder)
                outcomes[f"  begun again: {outcome(out)}"] += 1
        shutil.rmtree(folder / "made", ignore_errors=True)
    return outcomes


def main() -> None:
    """Kill, check what is left, count and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    kills = parser.parse_args().kills
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)  # a process with a pool of threads does not survive a fork
    encoder = load_encoder("minilm", "cpu")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        extract([str(small_corpus(folder / "addresses.jsonl", 16, 8))], folder / "data", encoder)
        outcomes = states(open_dataset(folder / "data"), folder, kills // 2)
        few = small_corpus(folder / "few.jsonl", 6, 3)
        outcomes += datasets(few, encoder, folder, kills - kills // 2)
    rows = [[name, str(count)] for name, count in outcomes.items()]
    print(Table(f"{kills} kills during writes", ["what was found", "times"], rows).markdown())
    if any("unreadable" in name or "half accepted" in name for name in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
