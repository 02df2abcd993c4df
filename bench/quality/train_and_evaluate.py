"""One training and its evaluation at several context lengths, in a process of its own.

    python -m bench.quality.train_and_evaluate DATASET OUT --arch lstm --split val --length 5 --length 16 --set model.width=512

Prints one JSON object. `--without` learns from every document but those of a source, and is tested on that source alone;
`--share` learns from that share of the training documents and is tested on the same test documents as all of them.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lvm.config import GateThresholds, train_config
from lvm.data.dataset import Dataset, open_dataset
from lvm.devices import resolve_device
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.gates.model import model_gates
from lvm.models.checkpoint import load_checkpoint
from lvm.training.trainer import STATE, train

UNUSED = "unused"


def regrouped(data: Dataset, splits: np.ndarray, label: str) -> Dataset:
    """The same documents in other splits. What is derived of it, and its trainings, are told apart by `label`."""
    return replace(data, doc_splits=splits, manifest=data.manifest.model_copy(update={"key": f"{data.manifest.key} {label}"}))


def without_source(data: Dataset, source: str) -> Dataset:
    """The documents of `source` are the test documents, those of others are learned from or validated on as before."""
    sources = data.table.column("source").take(pa.array(data.starts[:-1])).to_numpy(zero_copy_only=False)
    if source not in sources:
        raise SystemExit(f"no document is of source {source}: give one of {sorted(set(sources))}")
    kept = np.where(data.doc_splits == "test", UNUSED, data.doc_splits)
    return regrouped(data, np.where(sources == source, "test", kept), f"without {source}")


def with_share(data: Dataset, share: float) -> Dataset:
    """A fixed sample of the training documents; a smaller share's is part of a larger one's."""
    train_docs = np.random.default_rng(0).permutation(data.docs("train"))
    splits = data.doc_splits.copy()
    splits[train_docs[round(share * len(train_docs)) :]] = UNUSED
    return regrouped(data, splits, f"share {share}")


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--split", choices=("val", "test"), required=True)
    parser.add_argument("--length", type=int, action="append", required=True)
    parser.add_argument("--without")
    parser.add_argument("--share", type=float)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--preset")
    parser.add_argument("--set", action="append", default=[])
    asked = parser.parse_args()
    data, device = open_dataset(asked.dataset), resolve_device(asked.device)
    if asked.without:
        data = without_source(data, asked.without)
    if asked.share:
        data = with_share(data, asked.share)
    started = time.monotonic()
    trained = train(train_config(asked.arch, data.dim, asked.set, asked.preset), data, asked.out, device, fresh=True)
    (asked.out / "training" / STATE).unlink()  # gigabytes, of no more use
    found: dict[str, Any] = {
        "arch": asked.arch,
        "preset": asked.preset,
        "settings": asked.set,
        "seconds": round(time.monotonic() - started, 1),
    }
    found |= {"parameters": trained.parameters, "best": trained.best, "kept_epoch": trained.best["epoch"], "epochs": len(trained.history)}
    checkpoint = load_checkpoint(asked.out, device)
    found["gates"] = [gate.as_json() for gate in model_gates(checkpoint, evaluate_checkpoint(data, checkpoint, "val"), GateThresholds())]
    found["training"] = {split: [len(data.docs(split)), len(data.rows(split))] for split in ("train", "val", "test")}
    found[asked.split] = {length: evaluate_checkpoint(data, checkpoint, asked.split, length).summary() for length in asked.length}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
