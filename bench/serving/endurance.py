"""Half an hour of mixed load while the champion keeps changing: no response may be lost or come from another model.

    python -m bench.serving.endurance --model runs/a --model runs/b --minutes 30

The models take turns as champion. Each response is compared with the predictions of the model that it names.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import psutil
import torch

from bench.serving.load import Outcome, closed, request
from bench.serving.processes import memory, serving
from lvm.atomic_io import publish_folder
from lvm.reports.tables.table import Table
from lvm.serving.loaded_model import LoadedModel

CHANGE_SECONDS = 15.0
LENGTHS = (1, 3, 5)
BATCHES = (2, 8, 32)
TOLERANCE = 1e-4
"""Sums round differently in batches of another size; two models differ by a thousand times as much."""


class ExpectedPredictions:
    """Requests with contexts of several lengths and batch sizes, and what each model predicts for them."""

    def __init__(self, models: Sequence[LoadedModel]) -> None:
        examples = models[0].example_contexts
        contexts = [np.ascontiguousarray(context[-length:]) for context in examples for length in LENGTHS]
        contexts += [np.ascontiguousarray(examples[:size, -5:]) for size in BATCHES]
        self.requests = [request("/predict", _body(context), "application/json") for context in contexts]
        self.versions = {f"{model.checkpoint.config.arch}-v{number}": model.path for number, model in enumerate(models, 1)}
        """Folder of each model, by the name under which it is published."""

        self.responses = dict.fromkeys(self.versions, 0)
        """Responses by each model."""

        self._vectors = {
            name: [model.predict(c if c.ndim == 3 else c[None]).decoder.reshape(*c.shape[:-2], -1) for c in contexts]
            for name, model in zip(self.versions, models, strict=True)
        }

    def check(self, number: int, body: bytes) -> bool:
        """Whether the response to request `number` is what the model that it names predicts."""
        response = orjson.loads(body)
        self.responses[response["model"]] += 1
        return bool(np.abs(np.array(response["decoder"]) - self._vectors[response["model"]][number]).max() <= TOLERANCE)


@contextmanager
def changing_champion(champion: Path, versions: dict[str, Path], process: psutil.Process) -> Iterator[list[float]]:
    """Publish the versions in turn until the block ends. Gives the server's memory in MiB, at the start and after each change."""
    done, sizes = threading.Event(), [memory(process)]

    def change() -> None:
        turn = 0
        while not done.wait(CHANGE_SECONDS):
            turn += 1
            name, path = list(versions.items())[turn % len(versions)]
            publish_folder(path, champion, name)
            sizes.append(memory(process))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()


def main() -> None:
    """Run, print a table, and end with 1 when a response was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--connections", type=int, default=4, help="Above serving.sustained, some requests are refused.")
    options = parser.parse_args()
    expected = ExpectedPredictions([LoadedModel(path, torch.device("cpu")) for path in options.model])
    with tempfile.TemporaryDirectory() as folder:
        champion = Path(folder) / "champion"
        first, path = next(iter(expected.versions.items()))
        publish_folder(path, champion, first)
        with serving("ours", champion) as (port, process, _), changing_champion(champion, expected.versions, process) as sizes:
            started = time.monotonic()
            outcome = closed(port, expected.requests, options.connections, options.minutes * 60, expected.check)
    lost = _lost(outcome)
    title = f"{(time.monotonic() - started) / 60:.1f} minutes, {options.connections} connections"
    print(Table(title, ["what", "found"], _rows(outcome, lost, expected.responses, sizes)).markdown())
    if lost or outcome.wrong or min(expected.responses.values()) == 0:
        raise SystemExit(1)


def _lost(outcome: Outcome) -> int:
    return outcome.broken + sum(count for status, count in outcome.statuses.items() if status not in (200, 429))


def _rows(outcome: Outcome, lost: int, responses: dict[str, int], sizes: list[float]) -> list[list[str]]:
    settled = sizes[len(sizes) // 10 + 1 :] or sizes
    return [
        ["responses", str(outcome.statuses[200])],
        ["refused with 429", str(outcome.statuses[429])],
        ["lost", str(lost)],
        ["wrong", str(outcome.wrong)],
        ["changes of champion", str(len(sizes) - 1)],
        *([f"responses by {name}", str(count)] for name, count in responses.items()),
        ["memory after a tenth of the time, greatest, last, MiB", f"{settled[0]:.0f}, {max(sizes):.0f}, {sizes[-1]:.0f}"],
    ]


def _body(context: np.ndarray) -> bytes:
    return orjson.dumps({"context_vectors": context}, option=orjson.OPT_SERIALIZE_NUMPY)


if __name__ == "__main__":
    main()
