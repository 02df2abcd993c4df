"""Which harms the gates of the data see, and how often they refuse honest data.

    python -m bench.gates.poisons --work /tmp/gates --half 1 --commit $(git rev-parse HEAD)

Draws corpora from what `bench.gates.pool` left in WORK, harms them (`bench/gates/harms.py`), runs every gate, and writes poisons.json and
poisons.md. Half 0 of the pool's documents is for choosing thresholds, half 1 for reporting.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from bench.gates.corpora import Document, Pool, as_dataset, draw, open_pool
from bench.gates.harms import HARMS, Harm, as_it_is, harmed
from lvm.config import GateThresholds
from lvm.gates.data import data_gates
from lvm.gates.result import GateResult
from lvm.gates.stages import stage_gates
from lvm.reports.tables.table import Table

SIZES = {20: 1.0, 50: 1.0, 100: 1.0, 400: 0.125}
"""Documents of the honest corpora, and how many such corpora are drawn, as a share of --honest."""


def main() -> None:
    """Run the study, print and write its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--half", type=int, default=1, choices=(0, 1))
    parser.add_argument("--honest", type=int, default=200, help="honest corpora of 20, 50 and 100 documents each; an eighth of it of 400")
    parser.add_argument("--harmed", type=int, default=8, help="corpora of each harm, strength and size")
    parser.add_argument("--harmed-size", type=int, action="append", help="documents of the harmed corpora; 100 by default")
    parser.add_argument("--harm", action="append", help="only these, by name")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--commit", required=True)
    asked = parser.parse_args()
    pool, rows = open_pool(asked.work), []
    docs = pool.half(asked.half)
    for harm, strengths in HARMS.items():
        if asked.harm and harm.__name__ not in asked.harm:
            continue
        times = {size: round(share * asked.honest) for size, share in SIZES.items()}
        if harm is not as_it_is:
            times = dict.fromkeys(asked.harmed_size or (100,), asked.harmed)
        for strength in strengths:
            for size, count in times.items():
                rows.append(study(pool, docs, harm, strength, size, count))
                print(json.dumps(rows[-1]), flush=True)
    results = {"commit": asked.commit, "half": asked.half, "documents": len(docs), "kinds": len(np.unique(pool.kinds)), "rows": rows}
    (asked.out / "poisons.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (asked.out / "poisons.md").write_text(markdown(results), encoding="utf-8")
    print(markdown(results))


def study(pool: Pool, docs: np.ndarray, harm: Harm, strength: float, size: int, times: int) -> dict[str, Any]:
    """How many of so many corpora of `size` documents each gate refuses, and warns of, once they are harmed."""
    refused, warned = Counter[str](), Counter[str]()
    started = time.perf_counter()
    for number in range(times):
        rng = np.random.default_rng([size, number])
        results = gates(pool, harmed(pool, draw(pool, docs, size, rng), harm, strength, rng))
        refused.update(result.name for result in results if not result.passed)
        warned.update(result.name for result in results if result.severity == "warn")
        refused["any"] += any(not result.passed for result in results)
        warned["any"] += any(result.severity == "warn" for result in results) and all(result.passed for result in results)
    seconds = round((time.perf_counter() - started) / times, 2)
    return {
        "harm": harm.__name__, "strength": strength, "size": size, "corpora": times,
        "refused": dict(refused), "warned": dict(warned), "seconds": seconds,
    }  # fmt: skip


def gates(pool: Pool, documents: Sequence[Document]) -> list[GateResult]:
    """Every gate of the data on a corpus."""
    with tempfile.TemporaryDirectory() as folder:
        return data_gates(as_dataset(pool, documents, Path(folder)), GateThresholds())


def markdown(results: dict[str, Any]) -> str:
    """The results as a page: refusals, and warnings in brackets where there are some."""
    names = [*stage_gates("data"), "any"]
    columns = ["", "strength", "documents", "corpora", *names]
    rows = [
        [named(row["harm"]), f"{row['strength']:g}", str(row["size"]), str(row["corpora"]), *(shown(row, n) for n in names)]
        for row in results["rows"]
    ]
    honest = [row for row in rows if row[0] == named(as_it_is.__name__)]
    bounds = [f"{row['size']} documents: at most {upper(row):.1%}" for row in results["rows"] if row["harm"] == as_it_is.__name__]
    return "\n\n".join([
        "# What the gates of the data see",
        f"Commit {results['commit'][:12]}. Corpora drawn at random from {results['documents']} documents of {results['kinds']} kinds, "
        "half of the pool. Thresholds were chosen on the other half, but rules of `chunk_order` and `pairing` were changed after earlier "
        "versions had refused up to 2 % of the honest corpora of this one, so it is no longer unseen. Each figure is the number of corpora "
        "that a gate refuses, with those that it only warns of in brackets. Corpora of 400 documents share most of them.",
        Table("Honest corpora", columns, honest).markdown(),
        f"One-sided 95 % bounds of false refusals by any gate: {'; '.join(bounds)}.",
        Table("Harmed corpora", columns, [row for row in rows if row not in honest]).markdown(),
    ]) + "\n"  # fmt: skip


def named(harm: str) -> str:
    """A harm's name in words."""
    return harm.replace("_", " ")


def shown(row: dict[str, Any], name: str) -> str:
    """Refusals, and warnings in brackets."""
    refused, warned = row["refused"].get(name, 0), row["warned"].get(name, 0)
    return f"{refused} ({warned})" if warned else str(refused)


def upper(row: dict[str, Any]) -> float:
    """Upper end of the one-sided 95 % interval of the share of corpora that any gate refuses (Clopper & Pearson 1934)."""
    interval = binomtest(row["refused"].get("any", 0), row["corpora"], alternative="less").proportion_ci(0.95)
    return float(interval.high)


if __name__ == "__main__":
    main()
