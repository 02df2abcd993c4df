"""Train LSTM, Mamba2 and Transformer on a large corpus and report them beside the baselines.

    python bench/quality/run.py --source A.jsonl --source B.jsonl --device cuda --work /tmp/quality --commit $(git rev-parse HEAD)

Extraction, the data gates, training (the three side by side) and validation are the project's own
commands, run as subprocesses. Settings were chosen on validation documents (LOG.md); the test
documents are looked at once, here. Writes results.json and results.md into --out.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lvm.corpus.dataset import read_manifest
from lvm.report import Rows, interval_text

COMMON = ["context_length=16", "model.width=1024", "sampler.stretches=128", "epochs=12"]
SETTINGS = {
    "lstm": [],
    "mamba2": [],
    "transformer": ["model.layers=2", "learning_rate=0.0005"],
}


def lvm(*words: str) -> dict[str, Any]:
    """Run an lvm command with --json and return what it printed; a refusing gate is a result too."""
    done = subprocess.run([sys.executable, "-m", "lvm", *words, "--json"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"lvm {' '.join(words)} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def train_and_validate(arch: str, dataset: Path, work: Path, device: str) -> dict[str, Any]:
    """One model: its command, its training and its test results."""
    out = work / arch
    settings = [f"--set={setting}" for setting in COMMON + SETTINGS[arch]]
    command = ["train", str(dataset), "--arch", arch, "--out", str(out), "--device", device, "--fresh", *settings]
    started = time.monotonic()
    trained = lvm(*command)
    seconds = time.monotonic() - started
    gates = lvm("diagnose", str(dataset), "--model", str(out), "--device", device)
    test = lvm("validate", str(dataset), "--model", str(out), "--device", device)
    shown = ["lvm", "train", "DATASET", *command[2:5], "OUT", *command[6:]]
    return {"command": " ".join(shown), "seconds": round(seconds, 1), "trained": trained, "gates": gates, "test": test}


def main() -> None:
    """Parse the arguments, run everything, write the two result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, required=True, help="folder for the dataset and the models")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--commit", required=True, help="the commit that is being measured")
    parser.add_argument("--machine", default="one H100", help="for the record")
    args = parser.parse_args()

    dataset = args.work / "dataset"
    sources = [word for source in args.source for word in ("--source", source)]
    lvm("extract", *sources, "--out", str(dataset), "--device", args.device)
    warm = ["train", str(dataset), "--arch", "lstm", "--out", str(args.work / "warm"), "--device", args.device, "--fresh", "--epochs", "1"]
    lvm(*warm, *(f"--set={setting}" for setting in COMMON[:1]))  # fits the baselines once, before three processes would
    with ThreadPoolExecutor(len(SETTINGS)) as pool:
        models = dict(
            zip(SETTINGS, pool.map(lambda arch: train_and_validate(arch, dataset, args.work, args.device), SETTINGS), strict=True)
        )

    manifest = read_manifest(dataset)
    corpus = {
        "files": [Path(source).name for source in args.source],
        "collections": manifest.sources,
        "source_digest": manifest.source_digest,
        "documents": manifest.documents,
        "chunks": manifest.chunks,
        "encoder": manifest.recipe.name,
    }
    results = {"commit": args.commit, "machine": args.machine, "corpus": corpus, "models": models}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = markdown(results)
    (args.out / "results.md").write_text(page, encoding="utf-8")
    print(page)


def markdown(results: dict[str, Any]) -> str:
    """The results as a page."""
    corpus, models = results["corpus"], results["models"]
    rows = []
    for arch, model in models.items():
        m = model["test"]["metrics"]
        rows.append([
            arch,
            interval_text(m["cosine"]),
            interval_text(m["skill_cosine"], True),
            interval_text(m["recall_at_5"]),
            interval_text(m["skill_recall_at_5"], True),
            interval_text(m["shuffle_drop"], True),
            "pass" if model["gates"]["passed"] else "FAIL",
            f"{model['trained']['parameters']:,}",
            f"{model['seconds']:.0f} s",
        ])  # fmt: skip
    columns = ["model", "cosine", "skill_cosine", "recall_at_5", "skill_recall_at_5", "shuffle_drop", "gates", "parameters", "training"]
    first = next(iter(models.values()))["test"]
    pool = first["pool"]
    models_table = Rows(f"Test documents, context {first['context_length']}", columns, rows).markdown()
    names = ("cosine", "recall_at_1", "recall_at_5", "mrr")
    baselines = [
        [b, *(f"{values[n]:.4f}" for n in names)] for b, values in sorted(first["baselines"].items(), key=lambda x: -x[1]["cosine"])
    ]
    return "\n\n".join([
        "# Quality on 524,000 sentences",
        f"Commit {results['commit'][:12]}, {results['machine']}, the three trained side by side; intervals are 95 % over documents. "
        "Made by `bench/quality/run.py`; the numbers behind this page are in results.json.",
        f"Corpus: {', '.join(corpus['files'])} ({', '.join(corpus['collections'])}; source digest {corpus['source_digest'][:12]}), "
        f"documents {corpus['documents']}, chunks {corpus['chunks']}, encoder {corpus['encoder']}.",
        models_table,
        Rows(f"Baselines on the same {pool['queries']:,} windows of {pool['documents']} documents, pool {pool['size']:,} "
             f"({pool['sha256'][:8]}), chance R@5 {pool['chance_recall_at_5']:.5f}", ["", *names], baselines).markdown(),
        f"Best baselines: {first['best_baseline']}. Chunks dropped because they stand in train: {pool['dropped_leaked']:,}.",
        "Commands:",
        "\n".join(f"- `{model['command']}`" for model in models.values()),
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()
