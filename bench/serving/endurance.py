"""Half an hour of mixed load while the champion changes again and again: no answer may be lost, or be another model's.

    python -m bench.serving.endurance --model runs/a --model runs/b --minutes 30

Two models take turns as champion. Each answer is held against the predictions of the model that it names.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import orjson
import torch

from bench.serving.load import Outcome, closed, request
from bench.serving.processes import memory, serving
from lvm.atomic_io import publish_folder
from lvm.reports.tables.table import Table
from lvm.serving.loaded_model import Served

CHANGE_SECONDS = 15.0
LENGTHS = (1, 3, 5)
TOLERANCE = 1e-4
"""Sums in batches of another size round otherwise; two models differ by a thousand times as much."""


def main() -> None:
    """Run, and end with 1 when an answer was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--connections", type=int, default=4, help="With more than find room for long, some are refused.")
    asked = parser.parse_args()
    models = [Served(path, torch.device("cpu")) for path in asked.model]
    contexts = [np.ascontiguousarray(c[-n:]) for c in models[0].example for n in LENGTHS]
    contexts += [np.ascontiguousarray(models[0].example[:size, -5:]) for size in (2, 8, 32)]
    raws = [request("/predict", _body(c), "application/json") for c in contexts]
    expected: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as place:
        champion, versions = Path(place) / "champion", []
        for number, served in enumerate(models):
            versions.append((served.path, f"{served.checkpoint.config.arch}-v{number + 1}"))
            predictions = [served.predict(c if c.ndim == 3 else c[None]).decoder for c in contexts]
            expected[versions[-1][1]] = [p if c.ndim == 3 else p[0] for p, c in zip(predictions, contexts, strict=True)]
        publish_folder(versions[0][0], champion, versions[0][1])
        seen: dict[str, int] = dict.fromkeys(expected, 0)

        def right(number: int, body: bytes) -> bool:
            answer = orjson.loads(body)
            seen[answer["model"]] += 1
            return bool(np.abs(np.array(answer["decoder"]) - expected[answer["model"]][number]).max() <= TOLERANCE)

        with serving("ours", champion) as (port, process, _):
            done, sizes = threading.Event(), [memory(process)]

            def change() -> None:
                turn = 0
                while not done.wait(CHANGE_SECONDS):
                    turn += 1
                    publish_folder(versions[turn % len(versions)][0], champion, versions[turn % len(versions)][1])
                    sizes.append(memory(process))

            changing = threading.Thread(target=change)
            changing.start()
            started = time.monotonic()
            outcome: Outcome = closed(port, raws, asked.connections, asked.minutes * 60, right)
            done.set()
            changing.join()
    lost = outcome.broken + sum(outcome.statuses.values()) - outcome.statuses[200] - outcome.statuses[429]
    rows = [
        ["answers", str(outcome.statuses[200])],
        ["refused with 429", str(outcome.statuses[429])],
        ["lost", str(lost)],
        ["wrong", str(outcome.wrong)],
        ["changes of champion", str(len(sizes) - 1)],
    ]
    rows += [[f"answered by {name}", str(count)] for name, count in seen.items()]
    steady = sizes[len(sizes) // 10 + 1 :] or sizes
    rows.append(["memory after a tenth of the time, greatest, last, MiB", f"{steady[0]:.0f}, {max(sizes):.0f}, {sizes[-1]:.0f}"])
    print(Table(f"{(time.monotonic() - started) / 60:.1f} minutes, {asked.connections} connections", ["what", "found"], rows).markdown())
    if lost or outcome.wrong or min(seen.values()) == 0:
        raise SystemExit(1)


def _body(context: np.ndarray) -> bytes:
    return orjson.dumps({"context_vectors": context}, option=orjson.OPT_SERIALIZE_NUMPY)


if __name__ == "__main__":
    main()
