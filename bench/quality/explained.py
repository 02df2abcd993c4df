"""What the models of `bench.quality.run` use of their context, and which way they read.

    python -m bench.quality.explained --work /tmp/quality --device cuda --commit $(git rev-parse HEAD)

--work is the folder in which `bench.quality.run` left the dataset and the models. The first seed of each architecture is explained, as
`lvm explain` does, on test documents at context 16; beside it the same model is trained on documents that are read backwards. Writes
explained.json and explained.md into --out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bench.quality.parallel import side_by_side
from bench.quality.run import ARCHITECTURES, words
from lvm.data.dataset import open_dataset
from lvm.devices import resolve_device
from lvm.evaluation.explain import explain, require_mirror, skill
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.tables.explain import ablation_table, contrast_table, direction_table, information_table


def main() -> None:
    """Train the mirrors, explain, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", action="append", help="repeatable; auto by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--commit", required=True, help="the commit that is being measured")
    parser.add_argument("--machine", default="one H100", help="for the record")
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES, help="repeatable; all by default")
    parser.add_argument("--at-once", type=int, default=3, help="trainings side by side on each device")
    asked = parser.parse_args()
    devices, archs, dataset = asked.device or ["auto"], asked.arch or list(ARCHITECTURES), asked.work / "dataset"
    jobs = {f"{arch}-backward": [*words(arch, 0, "val"), "--set=reverse=true"] for arch in archs}
    side_by_side(dataset, asked.work, devices, jobs, asked.at_once, asked.commit)
    found = {arch: explained(dataset, asked.work / f"{arch}-0", asked.work / f"{arch}-backward", devices[0]) for arch in archs}
    results = {"commit": asked.commit, "machine": asked.machine, "models": found}
    (asked.out / "explained.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = markdown(results)
    (asked.out / "explained.md").write_text(page, encoding="utf-8")
    print(page)


def explained(dataset: Path, model: Path, mirror: Path, device: str) -> dict[str, Any]:
    """`lvm explain` of a model, with the skill of its mirror."""
    data, place = open_dataset(dataset), resolve_device(device)
    forward, backward = load_checkpoint(model, place), load_checkpoint(mirror, place)
    require_mirror(forward, backward)
    return explain(data, forward, "test") | {"backward": skill(data, backward, "test")}


def markdown(results: dict[str, Any]) -> str:
    """The results as a page."""
    parts = [
        "# What the models use of their context",
        f"Commit {results['commit'][:12]}, {results['machine']}; intervals are 95 % over documents. Made by "
        "`bench/quality/explained.py`; the numbers behind this page are in explained.json.",
    ]
    for arch, found in results["models"].items():
        ablated = [ablation_table(found, metric) for metric in found["rivals"]]
        tables = [*ablated, contrast_table(found), information_table(found), direction_table(found, found["backward"])]
        parts += [f"## {arch}", *(table.markdown() for table in tables)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
