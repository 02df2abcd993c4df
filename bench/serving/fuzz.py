"""Malformed requests: whatever is sent, the server responds, and never with 5xx.

    python -m bench.serving.fuzz --model models/champion --cases 10000

Half of the cases are JSON, half .npy: valid bodies that are cut, lengthened or get other bytes, numbers, shapes or fields, and
random bytes. Then schemathesis makes requests from the OpenAPI description. Needs `pip install "lvm-pipeline[bench]"`.
"""

import argparse
import asyncio
import io
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import uvloop
from rich.progress import track

from bench.serving.load import Connection, Outcome, request
from bench.serving.processes import serving
from lvm.reports.tables.table import Table
from lvm.serving.loaded_model import LoadedModel

SECONDS = 10.0
"""After which a response counts as missing."""

ODD = [None, True, "", "NaN", [], {}, [[]], -1, 2**70, 1e308, 1e-320, "\x00", "é" * 50, [1, [2]]]


def npy(array: np.ndarray) -> bytes:
    """A .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def mangled(body: bytes, draw: random.Random) -> bytes:
    """A body with some of its bytes removed, inserted or changed."""
    out = bytearray(body)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(out) + 1) if draw.random() < 0.5 else draw.randrange(min(128, len(out) + 1))
        match draw.randrange(3):
            case 0:
                del out[at : at + draw.choice([1, 4, 100, 10**6])]
            case 1:
                out[at:at] = draw.randbytes(draw.choice([1, 4, 100]))
            case 2:
                out[at : at + 1] = draw.randbytes(1)
    return bytes(out)


def json_case(context: np.ndarray, draw: random.Random) -> bytes:
    """A JSON body, usually wrong in some way."""
    vectors, output = context[: draw.randint(0, 5)].tolist(), draw.choice(["decoder", "cosine", "both"])
    value: dict[str, Any] = {"context_vectors": vectors, "output_type": output}
    match draw.randrange(5):
        case 0:
            value[draw.choice(["context_vectors", "output_type", "model", "sauce"])] = draw.choice(ODD)
        case 1:
            rows = value["context_vectors"]
            if rows:
                draw.choice(rows)[draw.randrange(len(rows[0]))] = draw.choice(ODD)
        case 2:
            return mangled(orjson.dumps(value), draw)
        case 3:
            return draw.randbytes(draw.randint(0, 300))
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS) if not _unserialisable(value) else b'{"context_vectors": [[1e999]]}'


def _unserialisable(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False


def npy_case(context: np.ndarray, draw: random.Random) -> bytes:
    """A .npy body, usually wrong in some way."""
    kinds: list[Any] = ["<f4", "<f8", ">f4", "<i8", "|b1", "<f2", "<c8", "O", "<U4"]
    match draw.randrange(4):
        case 0:
            shape = tuple(draw.randint(0, 4) for _ in range(draw.randint(0, 5)))
            return npy(np.zeros(shape, draw.choice(kinds)))
        case 1:
            return mangled(npy(context[: draw.randint(1, 5)]), draw)
        case 2:
            return b"\x93NUMPY" + draw.randbytes(draw.randint(0, 300))
    return npy(context * np.float32(draw.choice([1, 1, 0, 3, np.nan, np.inf])))


async def send_all(port: int, cases: list[bytes]) -> Counter[str]:
    """Send each case and count the responses by status."""
    outcome, responded = Outcome(), asyncio.Event()
    connection = Connection(port, cases, outcome, None, lambda _: responded.set())
    missing = 0
    for number in track(range(len(cases)), "cases"):
        responded.clear()
        connection.send(number, time.perf_counter())
        try:
            await asyncio.wait_for(responded.wait(), SECONDS)
        except TimeoutError:
            missing += 1
            connection.close()
    counts = Counter({str(status): count for status, count in outcome.statuses.items()})
    return +(counts + Counter({"connection ended": outcome.broken, "no response": missing}))


def main() -> None:
    """Send, count, then run schemathesis; ends with 1 when a case has no response or a 5xx."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=200, help="Of schemathesis, for each operation.")
    options = parser.parse_args()
    context = LoadedModel(options.model, torch.device("cpu")).example_contexts[0]
    draw = random.Random(0)
    cases = [request("/predict", json_case(context, draw), "application/json") for _ in range(options.cases // 2)]
    cases += [request("/predict", npy_case(context, draw), "application/x-npy") for _ in range(options.cases - len(cases))]
    with serving("ours", options.model) as (port, _, _):
        counts = uvloop.run(send_all(port, cases))
        print(Table(f"{len(cases)} cases", ["response", "cases"], [[k, str(v)] for k, v in sorted(counts.items())]).markdown(), flush=True)
        words = ["run", f"http://127.0.0.1:{port}/openapi.json", "--max-examples", str(options.examples)]
        checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
        schemathesis = subprocess.run([str(Path(sys.executable).with_name("schemathesis")), *words, "--checks", checks])
    bad = [k for k in counts if k.startswith("5") or not k.isdecimal()]
    if bad or schemathesis.returncode:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
