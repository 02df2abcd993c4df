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
from lvm.models.baselines import fit_baselines
from lvm.reports.tables.table import Table, interval_text

LENGTHS = (5, 16, 64)
ARCHITECTURES = ("lstm", "mamba2", "transformer")
METRICS = ("skill_cosine", "skill_recall_at_1", "skill_recall_at_5", "skill_mrr")


def words(arch: str, seed: int, length: int, split: str) -> list[str]:
    """The job of one training, for `bench.quality.train_and_evaluate`. Models and rivals are those of one context length."""
    settings = [f"--set=seed={seed}", f"--set=context_length={length}"]
    return ["--arch", arch, "--split", split, f"--length={length}", "--preset=quality", *settings]


def extracted(sources: list[str], work: Path, device: str, salt: str) -> Path:
    """The dataset, with its baselines fitted once, before several processes would each fit them."""
    dataset = work / "dataset"
    named = [word for source in sources for word in ("--source", source)]
    subprocess.run(
        [sys.executable, "-m", "lvm", "extract", *named, "--out", str(dataset), "--device", device, "--set", f"splits.salt={salt}"],
        check=True,
    )
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
        "salt": manifest.splits.salt,
        "documents": manifest.documents,
        "chunks": manifest.chunks,
        "encoder": manifest.recipe.name,
    }


def main() -> None:
    """Parse the arguments, run everything, write the two result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--device", action="append", help="repeatable, as cuda:0; auto by default")
    parser.add_argument("--salt", default="", help="salt of the splits: another one makes other test documents")
    parser.add_argument("--work", type=Path, required=True, help="folder for the dataset and the models")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--commit", required=True, help="the commit that is being measured")
    parser.add_argument("--machine", default="one H200", help="for the record")
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES, help="repeatable; all by default")
    parser.add_argument("--length", action="append", type=int, help="context length, repeatable; 5, 16 and 64 by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--at-once", type=int, default=3, help="trainings side by side on each device")
    args = parser.parse_args()
    devices = args.device or ["auto"]
    dataset = extracted(args.source, args.work, devices[0], args.salt)
    archs, lengths = args.arch or ARCHITECTURES, args.length or LENGTHS
    each = [(arch, length, seed) for length in lengths for seed in range(args.seeds) for arch in archs]
    jobs = {f"{arch}-{length}-{seed}": words(arch, seed, length, args.split) for arch, length, seed in each}
    models = side_by_side(dataset, args.work, devices, jobs, args.at_once, args.commit)
    for summary in (split_of(model)[length] for model in models.values() for length in split_of(model)):
        del summary["by_document"]  # every document's sums: what pairs models, and nine tenths of the file
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
    found = {(int(next(iter(split_of(one)))), one["arch"], number): one for number, one in enumerate(models.values())}
    means, rows = [], []
    for length in sorted({key[0] for key in found}):
        for arch in ARCHITECTURES:
            seeds = [one for key, one in found.items() if key[:2] == (length, arch)]
            metrics = [split_of(one)[str(length)]["metrics"] for one in seeds]
            if seeds:
                cells = [
                    f"{mean(m[name]['value'] for m in metrics):+.4f} ({lowest([m[name]['low'] for m in metrics])})" for name in METRICS
                ]
                means.append([str(length), arch, *cells])
            for number, (one, own) in enumerate(zip(seeds, metrics, strict=True)):
                shown = [interval_text(own["cosine"], False), interval_text(own["recall_at_5"], False)]
                shown += [interval_text(own[name], True) for name in METRICS]
                rows.append([str(length), arch, str(number), *shown, gates_text(one), f"{one['parameters']:,}", f"{one['seconds']:.0f} s"])
    parts = [
        "# Quality on 524,000 sentences",
        f"Commit {results['commit'][:12]}, {results['machine']}, {results['at_once']} trainings side by side on each; intervals are "
        "95 % over documents. Made by `bench/quality/run.py`; the numbers behind this page are in results.json.",
        f"Corpus: {', '.join(corpus['files'])} ({', '.join(corpus['collections'])}; source digest {corpus['source_digest'][:12]}, "
        f"salt of the splits {corpus['salt']!r}), documents {corpus['documents']}, chunks {corpus['chunks']}, encoder {corpus['encoder']}.",
        Table(f"Skill on {split} documents over the best baseline: mean of the seeds (lowest end of any of their intervals)",
             ["context", "model", *METRICS], means).markdown(),
        Table(f"Each training, {split} documents", ["context", "model", "seed", "cosine", "recall_at_5", *METRICS, "gates",
             "parameters", "training"], rows).markdown(),
        *(baselines_table(split_of(next(one for key, one in found.items() if key[0] == length))[str(length)])
          for length in sorted({key[0] for key in found})),
        "Commands:",
        "\n".join(f"- `{model['command']}`" for model in models.values()),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def gates_text(model: dict[str, Any]) -> str:
    """The gates that are not ok, with their severity."""
    return ", ".join(f"{gate['name']}: {gate['severity']}" for gate in model["gates"] if gate["severity"] != "ok") or "ok"


def baselines_table(summary: dict[str, Any]) -> str:
    """Every baseline on the windows of one context length."""
    names, pool = ("cosine", "recall_at_1", "recall_at_5", "mrr"), summary["pool"]
    ordered = sorted(summary["baselines"].items(), key=lambda x: -x[1]["cosine"])
    title = f"Baselines at context {summary['context_length']}: {pool['queries']:,} windows of {pool['documents']} documents, pool "
    title += f"{pool['size']:,} ({pool['sha256'][:8]}), chance R@5 {pool['chance_recall_at_5']:.5f}"
    return Table(title, ["", *names], [[b, *(f"{values[n]:.4f}" for n in names)] for b, values in ordered]).markdown()


def lowest(ends: list[float | None]) -> str:
    """The least of several lower ends, of which there are none where the documents are too few."""
    known = [end for end in ends if end is not None]
    return f"{min(known):+.4f}" if len(known) == len(ends) else "too few documents"


if __name__ == "__main__":
    main()
