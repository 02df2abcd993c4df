"""Collect what the coverage study resamples: the metrics of models and baselines, summed over the windows of each document.

    python -m bench.statistics.collect DATASET MODEL MODEL ... --name addresses --about "..." --commit $(git rev-parse HEAD)

Takes every document of the dataset, training documents too: the study asks how the figures of documents vary, not how good the models
are. The documents are divided into groups of about `GROUP`, and each group has a retrieval pool of its own, as validation documents
have. Writes NAME.json into --out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from lvm.data.dataset import Dataset, open_dataset
from lvm.data.windows import make_windows
from lvm.devices import resolve_device
from lvm.evaluation.evaluate import Evaluation, evaluate_checkpoint, score_baselines
from lvm.evaluation.intervals import document_sums
from lvm.models.checkpoint import Checkpoint, load_checkpoint

METRICS = ("cosine", "recall_at_1", "recall_at_5", "mrr")
GROUP = 13
"""Documents that share a pool: as many as the demo has for validation."""


def main() -> None:
    """Evaluate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("model", type=Path, nargs="+")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--name", required=True, help="of the file to write")
    parser.add_argument("--about", required=True, help="what the documents are, for the record")
    parser.add_argument("--commit", required=True, help="the commit that made the models")
    asked = parser.parse_args()
    data, device = open_dataset(asked.dataset), resolve_device(asked.device)
    models = {checkpoint.config.arch: checkpoint for checkpoint in (load_checkpoint(path, device) for path in asked.model)}
    order = np.random.default_rng(0).permutation(len(data.doc_ids))
    groups = [evaluated(data, models, docs) for docs in np.array_split(order, max(1, len(order) // GROUP))]
    sums = {name: {metric: joined(groups, name, metric) for metric in METRICS} for name in groups[0]["sums"]}
    written = {"about": asked.about, "commit": asked.commit, "dataset": data.manifest.digest}
    written |= {"windows": np.concatenate([group["windows"] for group in groups]).astype(int).tolist(), "sums": sums}
    (asked.out / f"{asked.name}.json").write_text(json.dumps(written) + "\n", encoding="utf-8")
    print(f"{len(written['windows'])} documents, {sum(written['windows'])} windows")


def evaluated(data: Dataset, models: dict[str, Checkpoint], docs: np.ndarray) -> dict[str, Any]:
    """Windows and sums of each of these documents, by model, and of the best baseline in each metric."""
    first = next(iter(models.values()))
    device, train = first.model.mean.device, first.config.train
    others = np.flatnonzero(~np.isin(data.row_doc, docs))
    windows = make_windows(data, "all", train.context_length, len(data.row_doc), device, leave_out=others)
    reference = score_baselines(data, windows, first.baselines, device)
    found = {name: evaluate_checkpoint(data, model, "all", ref=reference) for name, model in models.items()}
    sums = {name: {metric: per_document(one, one.model.quantity(metric)) for metric in METRICS} for name, one in found.items()}
    one = next(iter(found.values()))
    best = {metric: one.baselines[one.best_baseline(metric)].quantity(metric) for metric in METRICS}
    sums["best baseline"] = {metric: per_document(one, values) for metric, values in best.items()}
    return {"windows": document_sums(windows.docs, windows.docs)[1], "sums": sums}


def per_document(found: Evaluation, values_N: np.ndarray) -> np.ndarray:
    """The sum of the values of each document, float64 [documents]."""
    return document_sums(values_N, found.windows.docs)[0]


def joined(groups: list[dict[str, Any]], name: str, metric: str) -> list[float]:
    """The sums of all groups' documents, to five decimals."""
    return np.concatenate([group["sums"][name][metric] for group in groups]).round(5).tolist()


if __name__ == "__main__":
    main()
