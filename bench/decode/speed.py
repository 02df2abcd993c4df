"""Zero-step decoding: texts a second of the inverter and of vec2text's own loop.

    python bench/decode/speed.py --device cpu --n 256 --batch 1 --batch 32 --batch 128
    python bench/decode/speed.py --device cuda --n 8192 --batch 32 --batch 256 --batch 2048

Both networks are the same T5, that of the default inverter, with random weights that never end a text, so both
write the same number of tokens. The inverter decodes in its default precision; vec2text in float32, its default,
and in bfloat16. Their runs alternate, and the median counts. Results are appended to speed.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from bench.decode.vec2text_peer import vec2text_loop
from lvm.config import InverterConfig
from lvm.decoding.inverter.model import InverterModel
from lvm.decoding.inverter.text_writer import TextWriter
from lvm.decoding.inverter.tokens import train_tokenizer
from lvm.devices import resolve_dtype
from lvm.reports.tables.table import Table

DIM = 384
TOKENS = 31


def own_loop(model: InverterModel, n: int, batch: int, device: str, dtype: torch.dtype, rounds: int) -> float:
    """Texts a second of `TextWriter.write`, from vectors to strings."""
    words = (f"w{i} w{i % 97}x{i % 89}" for i in range(60_000))
    writer = TextWriter(model, train_tokenizer(words, model.config.vocabulary), dtype)
    vectors = np.random.default_rng(0).standard_normal((n, DIM)).astype(np.float32)
    writer.write(vectors[:batch])
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        for start in range(0, n, batch):
            writer.write(vectors[start : start + batch])  # ends with the texts on the host
        seconds.append(time.perf_counter() - started)
    return n / statistics.median(seconds)


def main() -> None:
    """Parse the arguments, time both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--batch", type=int, action="append", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="CPU threads; PyTorch's own choice by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("speed.json"))
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = InverterModel(InverterConfig(max_tokens=TOKENS), DIM).eval()
    with torch.no_grad():
        model.t5.shared.weight[:2] = 0  # neither PAD nor EOS is ever the likeliest
    model.to(a.device)
    model.t5.config.decoder_start_token_id = 0  # vec2text reads it from the config
    precision = resolve_dtype(a.device, "auto")
    results, rows = [], []
    for batch in a.batch:
        n = a.n if batch > 1 else min(a.n, 32)
        own = own_loop(model, n, batch, a.device, precision, a.rounds)
        for dtype in ("float32", "bfloat16"):
            peer = vec2text_loop(model.t5.config, DIM, n, batch, TOKENS + 1, device=a.device, dtype=dtype, rounds=a.rounds)
            name = str(precision).removeprefix("torch.")
            rows.append(
                [
                    str(batch),
                    f"{own:.1f} ({name})",
                    f"{peer['texts_per_second']} ({dtype})",
                    f"{own / float(str(peer['texts_per_second'])):.2f}",
                ]
            )
            results.append({"batch": batch, "own_texts_per_second": round(own, 2), "own_dtype": name, "peer": peer})
    known = json.loads(a.out.read_text()) if a.out.exists() else []
    a.out.write_text(json.dumps([*known, *results], indent=2) + "\n")
    print(
        Table(f"Zero-step decoding on {results[0]['peer']['device']}, texts/s", ["batch", "inverter", "vec2text", "ratio"], rows).markdown()
    )


if __name__ == "__main__":
    main()
