"""What the baselines' fit costs on a large dataset: seconds of each, and the peak of memory.

`python -m bench.rivals.million FOLDER` makes a dataset of some 1,000,000 chunks of 768 dimensions in FOLDER, where none is yet, and fits
every baseline for a context of 16 in a process of its own.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from bench.reliability.made_dataset import make_dataset
from lvm.config import BASELINES
from lvm.data.dataset import open_dataset
from lvm.devices import resolve_device
from lvm.models.baselines.fitting import fitting_data

GIB = 2**30


def fit(folder: Path, context_length: int, device: str) -> None:
    """Fit every baseline and print one JSON object: seconds of each and peak memory in GiB."""
    where = resolve_device(device)
    start = time.perf_counter()
    dataset = open_dataset(folder)
    data = fitting_data(dataset, context_length, 10_000, where)
    found: dict[str, float | str] = {
        "device": str(where),
        "chunks": dataset.n_rows,
        "dim": dataset.dim,
        "gather": time.perf_counter() - start,
    }
    for name in BASELINES:
        if make := BASELINES.about(name).get("fit"):
            start = time.perf_counter()
            data.fitted[name] = {key: value.cpu() for key, value in make(data).items()}
            found[name] = time.perf_counter() - start
            print(f"{name}: {found[name]:.1f} s", file=sys.stderr, flush=True)
    found["all"] = sum(value for name, value in found.items() if name in BASELINES and isinstance(value, float))
    found["memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    if where.type == "cuda":
        found["device_memory_gib"] = torch.cuda.max_memory_allocated() / GIB
    print(json.dumps(found, indent=2))


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    documents: Annotated[int, typer.Option(help="Documents of 20 to 200 chunks, where the dataset has to be made.")] = 9_100,
    dim: Annotated[int, typer.Option(help="Dimension, where the dataset has to be made.")] = 768,
    context_length: Annotated[int, typer.Option(help="Chunks of a context.")] = 16,
    device: Annotated[str, typer.Option(help="Torch device.")] = "auto",
    only_fit: Annotated[bool, typer.Option(help="Fit in this process; what the command itself starts.")] = False,
) -> None:
    """Make the dataset where there is none, then fit in a process of its own, whose peak of memory is the fit's alone."""
    if only_fit:
        fit(folder, context_length, device)
        return
    if not folder.exists():
        make_dataset(folder, documents, dim)
    again = [str(folder), "--context-length", str(context_length), "--device", device, "--only-fit"]
    sys.exit(subprocess.run([sys.executable, "-m", "bench.rivals.million", *again]).returncode)


if __name__ == "__main__":
    typer.run(main)
