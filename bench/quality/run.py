"""Train LSTM, Mamba2 and Transformer on a large corpus, three seeds each, and report them beside the baselines.

    python -m bench.quality.run --source A.jsonl --source B.jsonl --device cuda --work /tmp/quality --commit $(git rev-parse HEAD)

The settings are the preset `quality`, which was chosen on validation documents (`--split val`, LOG.md). The test documents are
looked at once for each configuration, here. Writes results.json and results.md into --out.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from bench.quality.parallel import side_by_side, split_of
from lvm.data.dataset import open_dataset
from lvm.data.manifest import read_manifest
from lvm.devices import resolve_device
from lvm.gates.result import GateResult, verdict
from lvm.models.baselines import fit_baselines
from lvm.reports.tables.table import Table, interval_text

LENGTHS = (5, 16, 64)
ARCHITECTURES = ("lstm", "mamba2", "transformer")
METRICS = ("skill_cosine", "skill_recall_at_5")


def words(arch: str, seed: int, split: str) -> list[str]:
    """The job of one training, for `bench.quality.train_and_evaluate`."""
    lengths = [f"--length={length}" for length in LENGTHS]
    return ["--arch", arch, "--split", split, *lengths, "--preset=quality", f"--set=seed={seed}"]


def extracted(sources: list[str], work: Path, device: str) -> Path:
    """The dataset, with its baselines fitted once, before several processes would each fit them."""
    dataset = work / "dataset"
    named = [word for source in sources for word in ("--source", source)]
    subprocess.run([sys.executable, "-m", "lvm", "extract", *named, "--out", str(dataset), "--device", device], check=True)
    data = open_dataset(dataset)
    for length in LENGTHS:
        fit_baselines(data, length, 10_000, resolve_device(device))
    return dataset


def corpus_of(dataset: Path, sources: list[str]) -> dict[str, Any]:
    """What was trained on, for the record."""
    manifest = read_manifest(dataset)
    return {
        "files": [Path(source).name for source in sources],
        "collections": manifest.sources,
        "source_digest": manifest.source_digest,
        "documents": manifest.documents,
        "chunks": manifest.chunks,
        "encoder": manifest.recipe.name,
    }


def main() -> None:
    """Parse the arguments, run everything, write the two result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--device", action="append", help="repeatable, as cuda:0; auto by default")
    parser.add_argument("--work", type=Path, required=True, help="folder for the dataset and the models")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--commit", required=True, help="the commit that is being measured")
    parser.add_argument("--machine", default="one H100", help="for the record")
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES, help="repeatable; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--at-once", type=int, default=3, help="trainings side by side on each device")
    args = parser.parse_args()
    devices = args.device or ["auto"]
    dataset = extracted(args.source, args.work, devices[0])
    jobs = {f"{arch}-{seed}": words(arch, seed, args.split) for seed in range(args.seeds) for arch in args.arch or ARCHITECTURES}
    models = side_by_side(dataset, args.work, devices, jobs, args.at_once, args.commit)
    results = {"commit": args.commit, "machine": args.machine, "split": args.split, "corpus": corpus_of(dataset, args.source)}
    results |= {"at_once": args.at_once, "models": models}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = markdown(results)
    (args.out / "results.md").write_text(page, encoding="utf-8")
    print(page)


def markdown(results: dict[str, Any]) -> str:
    """The results as a page."""
    corpus, models, split = results["corpus"], results["models"], results["split"]
    archs = {arch: [found for found in models.values() if found["arch"] == arch] for arch in ARCHITECTURES}
    archs = {arch: seeds for arch, seeds in archs.items() if seeds}
    means, rows = [], []
    for length in map(str, LENGTHS):
        for arch, seeds in archs.items():
            found = [split_of(seed)[length]["metrics"] for seed in seeds]
            means.append([length, arch, *(f"{mean(one[m]['value'] for one in found):+.4f}" for m in METRICS)])
            means[-1] += [lowest([one[m]["low"] for one in found]) for m in METRICS]
            for number, (seed, metrics) in enumerate(zip(seeds, found, strict=True)):
                shown = [interval_text(metrics[m], m.startswith("skill")) for m in ("cosine", METRICS[0], "recall_at_5", METRICS[1])]
                gates = verdict([GateResult(**gate) for gate in seed["gates"]])
                rows.append([length, arch, str(number), *shown, gates, f"{seed['parameters']:,}", f"{seed['seconds']:.0f} s"])
    first = split_of(next(iter(models.values())))
    parts = [
        "# Quality on 524,000 sentences",
        f"Commit {results['commit'][:12]}, {results['machine']}, {results['at_once']} trainings side by side on each; intervals are "
        "95 % over documents. Made by `bench/quality/run.py`; the numbers behind this page are in results.json.",
        f"Corpus: {', '.join(corpus['files'])} ({', '.join(corpus['collections'])}; source digest {corpus['source_digest'][:12]}), "
        f"documents {corpus['documents']}, chunks {corpus['chunks']}, encoder {corpus['encoder']}.",
        Table(f"Skill on {split} documents over the best baseline: mean of the seeds, and the lowest end of any of their intervals",
             ["context", "model", *METRICS, "lowest end, cosine", "lowest end, recall"], means).markdown(),
        Table(f"Each training, {split} documents", ["context", "model", "seed", "cosine", METRICS[0], "recall_at_5", METRICS[1], "gates",
             "parameters", "training"], rows).markdown(),
    ]  # fmt: skip
    names = ("cosine", "recall_at_1", "recall_at_5", "mrr")
    for length in map(str, LENGTHS):
        summary, pool = first[length], first[length]["pool"]
        ordered = sorted(summary["baselines"].items(), key=lambda x: -x[1]["cosine"])
        title = f"Baselines at context {length}: {pool['queries']:,} windows of {pool['documents']} documents, pool {pool['size']:,} "
        title += f"({pool['sha256'][:8]}), chance R@5 {pool['chance_recall_at_5']:.5f}"
        parts.append(Table(title, ["", *names], [[b, *(f"{values[n]:.4f}" for n in names)] for b, values in ordered]).markdown())
    parts += ["Commands:", "\n".join(f"- `{model['command']}`" for model in models.values())]
    return "\n\n".join(parts) + "\n"


def lowest(ends: list[float | None]) -> str:
    """The least of several lower ends, of which there are none where the documents are too few."""
    known = [end for end in ends if end is not None]
    return f"{min(known):+.4f}" if len(known) == len(ends) else "too few documents"


if __name__ == "__main__":
    main()
