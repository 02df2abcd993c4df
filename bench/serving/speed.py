"""Latency and throughput beside competitors, and behaviour at five times the capacity.

    python -m bench.serving.speed --model models/champion

The competitors run on the same machine in the same run: a plain FastAPI endpoint with the same model and no batching, and
LitServe. All read the same JSON; ours is also measured with .npy bodies. Client and server share the cores unless told otherwise:

    taskset -c 2,3 python -m bench.serving.speed --model models/champion --cores 0,1
"""

import argparse
import io
import time
from pathlib import Path

import numpy as np
import orjson
import torch

from bench.serving.load import Outcome, closed, opened, request
from bench.serving.processes import memory, serving
from lvm.reports.tables.table import Table
from lvm.serving.loaded_model import LoadedModel

CONNECTIONS = (1, 2, 3, 4, 5, 6, 8, 16, 32)


def json_requests(model: LoadedModel, length: int, batched: bool) -> list[bytes]:
    """JSON requests with one real context each; `batched` as a batch of one."""
    contexts = [context[-length:] for context in model.example_contexts]
    json = [orjson.dumps({"context_vectors": [c] if batched else c}, option=orjson.OPT_SERIALIZE_NUMPY) for c in contexts]
    return [request("/predict", body, "application/json") for body in json]


def npy_requests(model: LoadedModel, length: int) -> list[bytes]:
    """The same requests as .npy."""
    out = []
    for context in model.example_contexts:
        file = io.BytesIO()
        np.save(file, context[-length:])
        out.append(request("/predict", file.getvalue(), "application/x-npy"))
    return out


def bare_call(loaded: LoadedModel, length: int, seconds: float) -> float:
    """Median milliseconds of the model call alone: one context, one thread."""
    torch.set_num_threads(1)
    model = loaded.checkpoint.model
    x = torch.from_numpy(np.ascontiguousarray(loaded.example_contexts[:1, -length:]))
    times, end = [], time.perf_counter() + seconds
    with torch.inference_mode():
        while (started := time.perf_counter()) < end:
            model(x, return_both=True)
            times.append(time.perf_counter() - started)
    return float(np.median(times) * 1000)


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--length", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="Duration of each measurement.")
    parser.add_argument("--overload", type=float, default=60, help="Seconds at five times the capacity.")
    parser.add_argument("--cores", help="Processor cores of the servers, such as 0,1; by default those of this command.")
    options = parser.parse_args()
    model = LoadedModel(options.model, torch.device("cpu"))
    call = bare_call(model, options.length, options.seconds)
    title = f"{model.name}: {model.checkpoint.config.arch}, context {options.length}; the bare call takes {call:.2f} ms"
    found: dict[str, dict[int, Outcome]] = {}
    rows = []
    for kind in ("plain", "litserve", "ours", "ours, .npy"):
        raws = npy_requests(model, options.length) if kind.endswith("npy") else json_requests(model, options.length, kind != "ours")
        with serving(kind.partition(",")[0], options.model, cores=options.cores) as (port, _, ready):
            closed(port, raws, 4, 1)
            found[kind] = {n: closed(port, raws, n, options.seconds) for n in CONNECTIONS}
        for n, outcome in found[kind].items():
            shown = [f"{outcome.rate:.0f}", *(f"{outcome.percentile(p):.2f}" for p in (50, 99))]
            refused = sum(outcome.statuses.values()) - outcome.statuses[200]
            rows.append([kind, str(n), *shown, str(refused), f"{ready:.1f}"])
            print(rows[-1], flush=True)
    columns = ["server", "connections", "answers/s", "p50, ms", "p99, ms", "refused", "ready after, s"]
    print(Table(title, columns, rows).markdown())
    best = max(found["plain"].values(), key=lambda outcome: outcome.rate)
    for kind in ("litserve", "ours", "ours, .npy"):
        within = [outcome.rate for outcome in found[kind].values() if outcome.percentile(99) <= best.percentile(99)]
        ratio = max(within, default=0.0) / best.rate
        print(f"{kind}: {ratio:.2f} times plain's best {best.rate:.0f}/s within its p99 of {best.percentile(99):.1f} ms")
        print(f"{kind}: batch-1 p50 {found[kind][1].percentile(50):.2f} ms = {found[kind][1].percentile(50) / call:.2f} bare calls")
    overload(model, options.length, max(o.rate for o in found["ours, .npy"].values()), options.overload, options.cores)


def overload(model: LoadedModel, length: int, capacity: float, seconds: float, cores: str | None) -> None:
    """Measure a tenth of the capacity, then five times the capacity."""
    raws = npy_requests(model, length)
    with serving("ours", model.path, cores=cores) as (port, process, _):
        calm = opened(port, raws, capacity / 10, seconds / 2)
        before = memory(process)
        flood = opened(port, raws, capacity * 5, seconds)
        after = memory(process)
    rows = []
    for name, outcome in (("a tenth of the capacity", calm), ("five times the capacity", flood)):
        offered = sum(outcome.statuses.values()) / outcome.seconds
        failed = sum(count for status, count in outcome.statuses.items() if status >= 500)
        counts = [outcome.statuses[200], outcome.statuses[429], failed, outcome.broken]
        rows.append([name, f"{offered:.0f}", *map(str, counts), *(f"{outcome.percentile(p):.2f}" for p in (50, 99))])
    columns = ["load", "requests/s", "200", "429", "5xx", "broken", "p50, ms", "p99 of the accepted, ms"]
    print(Table(f"Capacity {capacity:.0f} a second; memory {before:.0f} MiB before, {after:.0f} after", columns, rows).markdown())
    print(f"p99 of the accepted: {flood.percentile(99) / calm.percentile(99):.2f} times unloaded")


if __name__ == "__main__":
    main()
