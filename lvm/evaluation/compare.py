"""Choosing between models, on validation documents only."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lvm.data.dataset import Dataset
from lvm.data.windows import make_windows, unit
from lvm.evaluation.evaluate import predict, score
from lvm.evaluation.intervals import Interval, document_interval
from lvm.models.checkpoint import Checkpoint


def choose(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the best model by skill in cosine; among models whose intervals overlap the leader's, by skill in recall@5.

    `summaries` are `Evaluation.summary()`s on validation documents, by name.
    """

    def skill(name: str, metric: str) -> Interval:
        return Interval(**summaries[name]["metrics"][f"skill_{metric}"])

    leader = max(summaries, key=lambda name: skill(name, "cosine").value)
    tied = [name for name in summaries if skill(name, "cosine").touches(skill(leader, "cosine"))]
    return max(tied, key=lambda name: (skill(name, "recall_at_5").value, skill(name, "cosine").value))


def paired_difference(dataset: Dataset, challenger: Checkpoint, champion: Checkpoint) -> Interval:
    """Cosine of the challenger minus that of the champion, paired by validation window.

    Raises `InputError` when the two read different encoders: their vectors cannot be compared.
    """
    champion.config.recipe.require_same(challenger.config.recipe, "the current champion; move it away to start anew")
    train = challenger.config.train
    device = challenger.model.mean.device
    windows = make_windows(dataset, "val", train.context_length, train.eval_windows, device)
    targets, pool = unit(dataset.vectors[windows.targets], device), unit(dataset.vectors[windows.pool], device)
    cosines = []
    for checkpoint in (challenger, champion):
        y_dec, y_cos = predict(checkpoint.model, dataset, windows, device)
        cosines.append(score(y_dec, y_cos, targets, pool, windows).cosine)
    return document_interval(np.subtract(*cosines), windows.docs)
