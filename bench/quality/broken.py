"""The broken original beside its repair: one trunk, one dataset, both recipes, through the same gates and into words.

    lvm extract --source builtin:sotu --out data/sotu
    python -m bench.quality.broken --dataset data/sotu --work /tmp/broken --commit $(git rev-parse HEAD)

Gates run on validation documents, everything else is of test documents. Writes broken.json and broken.md into --out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from lvm.config import GateThresholds, train_config
from lvm.data.dataset import Dataset, open_dataset
from lvm.decoding.evaluate import CORRECTIONS, decode_windows
from lvm.decoding.load import AUTO, LoadedDecoder, NoDecoder, open_decoder
from lvm.devices import resolve_device
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.gates.model import model_gates
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.tables.gates import MARKS
from lvm.reports.tables.table import Table, interval_text
from lvm.training.trainer import train

RECIPES = {"legacy": "broken", "residual": "repaired"}
METRICS = ("cosine", "skill_cosine", "recall_at_5", "skill_recall_at_5")
SAMPLES = 4


def main() -> None:
    """Train both, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, required=True, help="folder for the models")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--commit", required=True, help="the commit that is being measured")
    parser.add_argument("--arch", default="gru")
    parser.add_argument("--set", action="append", default=[], help="settings of both trainings")
    asked = parser.parse_args()
    data = open_dataset(asked.dataset)
    decoder = open_decoder(AUTO, data, str(resolve_device(asked.device)), CORRECTIONS)
    if isinstance(decoder, NoDecoder):
        raise SystemExit(decoder.reason)
    found = {recipe: evaluated(data, recipe, asked.arch, asked.set, decoder, asked.device, asked.work / recipe) for recipe in RECIPES}
    manifest = data.manifest
    results = {"commit": asked.commit, "arch": asked.arch, "settings": asked.set, "decoder": decoder.name, "recipes": found}
    results |= {"collections": manifest.sources, "documents": manifest.documents, "digest": manifest.digest}
    (asked.out / "broken.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = markdown(results)
    (asked.out / "broken.md").write_text(page, encoding="utf-8")
    print(page)


def evaluated(data: Dataset, recipe: str, arch: str, settings: list[str], decoder: LoadedDecoder, device: str, out: Path) -> dict[str, Any]:
    """What is found on a model of this recipe."""
    place = resolve_device(device)
    trained = train(train_config(arch, data.dim, settings, None if recipe == "residual" else recipe), data, out, place, resume=True)
    checkpoint = load_checkpoint(out, place)
    gates = model_gates(checkpoint, evaluate_checkpoint(data, checkpoint, "val"), GateThresholds())
    text = decode_windows(data, checkpoint, decoder).summary()
    text["samples"] = text["samples"][:: max(1, len(text["samples"]) // SAMPLES)][:SAMPLES]
    return {
        "kept_epoch": trained.best["epoch"],
        "epochs": len(trained.history),
        "gates": [gate.as_json() for gate in gates],
        "test": evaluate_checkpoint(data, checkpoint, "test").summary(),
        "text": text,
    }


def markdown(results: dict[str, Any]) -> str:
    """Both beside each other, row by row."""
    found = results["recipes"]
    columns = ["", *RECIPES.values()]

    def beside(title: str, rows: dict[str, list[str]]) -> str:
        return Table(title, columns, [[name, *values] for name, values in rows.items()]).markdown()

    tests = [found[recipe]["test"] for recipe in RECIPES]
    texts = [found[recipe]["text"] for recipe in RECIPES]
    gates = {
        one["name"]: [f"{MARKS[g['severity']]}, {g['value']:.4g} (threshold {g['threshold']:.4g})" for g in (one, other)]
        for one, other in zip(*(found[recipe]["gates"] for recipe in RECIPES), strict=True)
    }
    skill = {name: [interval_text(t["metrics"][name], name.startswith("skill")) for t in tests] for name in METRICS}
    spread = []
    for head in ("y_dec", "y_cos"):
        for of in ("pairwise_cosine", "effective_rank", "sigma_ratio", "norm"):
            values = [t["collapse"][f"{head}_{of}"] for t in tests] + [
                tests[0]["collapse"][f"{other}_{of}"] for other in ("ridge", "target")
            ]
            spread.append([f"{head}_{of}", *(f"{value:.3f}" for value in values)])
    arms = {
        f"{name} of the prediction in words": [f"{t['arms']['C'][name]:.3f}" for t in texts] for name in ("bleu", "token_f1", "distinct_2")
    }
    arms |= {"cosine of those words to the true next chunk": [interval_text(t["about"]["C"]) for t in texts]}
    pairs = zip(*(t["samples"] for t in texts), strict=True)
    rows = [[broken["truth"], broken["inverted"], repaired["inverted"]] for broken, repaired in pairs]
    epochs = "; ".join(f"{name}: {found[r]['epochs']} epochs, kept {found[r]['kept_epoch']:.0f}" for r, name in RECIPES.items())
    settings = " ".join(results["settings"]) or "the defaults"
    counts = ", ".join(f"{count} {split}" for split, count in results["documents"].items())
    corpus = f"documents {counts}, of {', '.join(results['collections'])} (digest {results['digest'][:12]})"
    return "\n\n".join([
        "# The broken original beside its repair",
        f"Commit {results['commit'][:12]}; {results['arch']}, settings: {settings}; {corpus}; {epochs}. Broken: one linear head, unit "
        "length, squared error (`--preset legacy`). Made by `bench/quality/broken.py`; the numbers behind this page are in broken.json.",
        beside("Gates, validation documents", gates),
        beside(f"Test documents, context {tests[0]['context_length']}; intervals are 95 % over documents", skill),
        Table("Moments and diversity, test documents", [*columns, "ridge", "the encoder's"], spread).markdown(),
        beside(f"Text of {texts[0]['windows']} windows of test documents, by {results['decoder']}", arms),
        Table("Samples", ["true next chunk", *RECIPES.values()], rows).markdown(),
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()
