"""How often does `night_skill` fail by chance? Nights drawn from a champion's own documents, whose skill is set to 0.

    python -m bench.nightly.false_alarms data/DIGEST models/champion

The documents are those of validation and test, with the sums of their windows' skills as they are, moved so that the mean is 0.
A night draws documents from them with replacement. The test of signs is that of the gate, with one set of random signs for all nights.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset, open_dataset
from lvm.evaluation.evaluate import SKILLS, evaluate_checkpoint
from lvm.evaluation.intervals import document_sums
from lvm.evaluation.sign_test import FLIPS
from lvm.models.checkpoint import Checkpoint, load_checkpoint

NIGHTS = 100_000
AT_ONCE = 5_000
DOCUMENTS = (20, 40)
"""Documents a night. With thirteen or fewer the gate tries every pattern of signs, which is not what is drawn here."""


def without_skill(dataset: Dataset, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """By metric: the sum of the skills of each document, float32, moved so that the mean over all windows is 0."""
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {metric: [] for metric in SKILLS}
    for split in ("val", "test"):
        found = evaluate_checkpoint(dataset, checkpoint, split)
        for metric in SKILLS:
            parts[metric].append(document_sums(found.skills(metric), found.windows.docs))
    out = {}
    for metric, sides in parts.items():
        sums, counts = (np.concatenate(side) for side in zip(*sides, strict=True))
        out[metric] = (sums - sums.sum() / counts.sum() * counts).astype(np.float32)
    return out


def alarms(documents: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Whether the skill in each metric is found below 0, for nights of `count` documents: bool [metrics, NIGHTS]."""
    rng = np.random.default_rng(0)
    signs = rng.choice(np.array([-1, 1], np.float32), (FLIPS, count))
    most = int(GateThresholds().night_level / len(SKILLS) * (FLIPS + 1)) - 1
    out = np.zeros((len(SKILLS), NIGHTS), bool)
    for start in range(0, NIGHTS, AT_ONCE):
        drawn = rng.integers(0, len(documents["cosine"]), (count, AT_ONCE))
        for row, metric in enumerate(SKILLS):
            sums = documents[metric][drawn]
            # Two standard errors below 0 or less: no other night is significant at this level, so the others need no test.
            low = np.flatnonzero(sums.sum(0) < -2 * np.sqrt(np.square(sums).sum(0)))
            reached = (signs @ sums[:, low] <= sums[:, low].sum(0) + 1e-6).sum(0)
            out[row, start + low] = reached <= most
    return out


def main() -> None:
    """Print the share of nights with a false alarm."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("model", type=Path)
    given = parser.parse_args()
    documents = without_skill(open_dataset(given.dataset), load_checkpoint(given.model, torch.device("cpu")))
    print(f"{len(documents['cosine'])} documents, {NIGHTS:,} nights; shares of nights with a false alarm")
    for count in DOCUMENTS:
        found = alarms(documents, count)
        each = ", ".join(f"{metric} {share:.5f}" for metric, share in zip(SKILLS, found.mean(1), strict=True))
        print(
            f"{count} documents: {each}; any of retrieval {found[1:].any(0).mean():.5f}, any of four {found.any(0).mean():.5f}", flush=True
        )


if __name__ == "__main__":
    main()
