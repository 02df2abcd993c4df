"""The search for the strongest predictor of the next chunk that is fitted without gradients.

    python -m bench.rivals.search DATASET --context 8 --device cpu

Everything is fitted on training documents; each candidate's parameters are those of its small grid that are best on validation windows,
in cosine for the decoder's vector and in mean reciprocal rank for the query. Prints two Markdown tables for validation documents. A
candidate that beats the best before it becomes the best; the difference stands beside it with its interval over documents.

--look prints the same for test documents, with the parameters chosen on validation. Each candidate is then counted as a look at them
(`lvm.evaluation.looks`): once, at the end.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.rivals import decoder, query
from bench.rivals.problem import Problem, open_problem
from lvm.data.dataset import open_dataset
from lvm.devices import resolve_device
from lvm.evaluation.intervals import document_interval
from lvm.evaluation.looks import count_look
from lvm.reports.tables.table import Table

METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "R@1": lambda ranks: ranks <= 1,
    "R@5": lambda ranks: ranks <= 5,
    "MRR": lambda ranks: 1 / ranks,
}


@dataclass
class Found:
    """A candidate with its best parameters."""

    name: str
    chosen: Mapping[str, Any]
    values: dict[str, dict[str, np.ndarray]]
    """By split and metric: a value for each window."""

    seconds: float


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--context", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pool", type=int, default=10_000)
    parser.add_argument("--landmarks", type=int, default=2_000, help="of kernel ridge regression; 0 leaves it out")
    parser.add_argument("--look", action="store_true", help="print test numbers too")
    asked = parser.parse_args()
    splits = ("val", "test") if asked.look else ("val",)
    began = time.perf_counter()
    p = open_problem(open_dataset(asked.dataset), asked.context, asked.pool, resolve_device(asked.device), splits)
    print(f"prepared in {time.perf_counter() - began:.1f} s; {len(p.examples()):,} training contexts; windows: ", end="")
    print(
        ", ".join(f"{split} {len(p.windows[split].answer):,} of {len(set(p.windows[split].docs))} documents" for split in splits),
        flush=True,
    )
    state = decoder.Best()
    report(p, splits, "decoder vector", "cosine", list(search_decoder(p, splits, asked.landmarks, state)), ["cosine"])
    report(p, splits, "query", "MRR", list(search_query(p, splits, state)), list(METRICS))
    print(f"\nin all {time.perf_counter() - began:.0f} s; most memory {memory(p.device)}")


def search_decoder(p: Problem, splits: tuple[str, ...], landmarks: int, state: decoder.Best) -> Iterator[Found]:
    """Every candidate for the decoder's vector, the best one kept in `state` as it goes."""
    for candidate in decoder.candidates(p, state, landmarks):

        def cosines(options: Mapping[str, Any], split: str, candidate: decoder.Candidate = candidate) -> dict[str, np.ndarray]:
            return {"cosine": p.cosines(candidate.make(**options)(split), split)}

        found = choose(p, candidate.name, candidate.grid, cosines, splits, "cosine")
        state.offer(candidate, found.chosen, float(found.values["val"]["cosine"].mean()))
        yield found


def search_query(p: Problem, splits: tuple[str, ...], state: decoder.Best) -> Iterator[Found]:
    """Every candidate for the query."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for candidate in query.candidates(p, state, chosen):

        def ranks(options: Mapping[str, Any], split: str, candidate: query.Candidate = candidate) -> dict[str, np.ndarray]:
            asked, term = candidate.make(**options)(split)
            found = p.ranks(asked, split, term)
            return {metric: value(found) for metric, value in METRICS.items()}

        found = choose(p, candidate.name, candidate.grid, ranks, splits, "MRR")
        chosen[candidate.name] = found.chosen
        yield found


def choose(
    p: Problem,
    name: str,
    grid: Mapping[str, tuple[Any, ...]],
    values: Callable[[Mapping[str, Any], str], dict[str, np.ndarray]],
    splits: tuple[str, ...],
    metric: str,
) -> Found:
    """The options of the grid with the best mean of `metric` on validation, and what they give on each split."""
    began = time.perf_counter()
    options = [dict(zip(grid, point, strict=True)) for point in product(*grid.values())]
    scored = [values(option, "val") for option in options]
    best = max(range(len(options)), key=lambda i: scored[i][metric].mean())
    seconds = time.perf_counter() - began
    print(f"{seconds:7.1f} s  {scored[best][metric].mean():.4f}  {name}: {text(options[best])}", file=sys.stderr, flush=True)
    for split in splits:
        configuration: dict[str, str | int] = {
            "rival": name,
            "chosen": text(options[best]),
            "context_length": p.length,
            "dataset": p.dataset.manifest.digest,
        }
        count_look(p.dataset, split, name, configuration)
    return Found(name, options[best], {s: scored[best] if s == "val" else values(options[best], s) for s in splits}, seconds)


def report(p: Problem, splits: tuple[str, ...], what: str, decisive: str, found: list[Found], metrics: list[str]) -> None:
    """Print a table for each split."""
    for split in splits:
        rows, best = [], None
        for one in found:
            values = one.values[split]
            differences = ["first"] * len(metrics)
            if best is not None:
                differences = [str(document_interval(values[m] * 1.0 - best.values[split][m], p.windows[split].docs)) for m in metrics]
            means = [f"{values[m].mean():.4f}" for m in metrics]
            rows.append([one.name, text(one.chosen), *means, *differences, f"{one.seconds:.1f}"])
            if best is None or one.values["val"][decisive].mean() > best.values["val"][decisive].mean():
                best = one
        beside = [f"{metric} minus the best above" for metric in metrics]
        print("\n" + Table(f"{what}, {split}", ["candidate", "chosen", *metrics, *beside, "s"], rows).markdown(), flush=True)


def text(options: Mapping[str, Any]) -> str:
    """Options in words."""
    return ", ".join(str(value) if name in ("of", "key") else f"{name} {value}" for name, value in options.items())


def memory(device: torch.device) -> str:
    """The most memory of the process and of the device."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    text = f"{host:.1f} GiB of the host"
    return text + f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of the GPU" if device.type == "cuda" else text


if __name__ == "__main__":
    main()
