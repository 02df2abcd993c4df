"""Which of two models is better, told on validation documents; one rule for the choice in a flow and for promotion.

A model has two heads: cosine measures y_dec; recall@1, recall@5 and MRR measure y_cos. Two models answer the same windows, so their
difference is taken window by window ("in pairs"), and its 95 % interval is over documents: what makes a document hard for both cancels.

A model is *better* than another when at least one of the four intervals lies wholly above 0 and none wholly below 0. The gate
`baselines` asks the same of a model and its best baselines. Where neither of two models is better they are *as good as* each other:
nothing tells them apart, or each is ahead in something.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lvm.data.dataset import Dataset
from lvm.data.splits import assign_splits, duplicate_groups
from lvm.data.windows import make_windows, unit
from lvm.errors import InputError
from lvm.evaluation.evaluate import predict, score
from lvm.evaluation.intervals import MIN_DOCUMENTS, Interval, interval_of_sums
from lvm.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Comparison:
    """A challenger beside the champion on the validation documents that neither was trained on."""

    differences: dict[str, Interval]
    """By metric: the challenger's minus the champion's, in pairs. Empty when fewer than `MIN_DOCUMENTS` documents are left."""

    documents: int
    """Documents that were compared on."""

    left_out: int
    """Validation documents that the champion may have been trained on."""

    @property
    def better(self) -> bool:
        """Whether the challenger is better."""
        return better(self.differences.values())

    def __str__(self) -> str:
        parts = [f"{metric} {difference}" for metric, difference in self.differences.items()]
        text = f"challenger minus champion on {self.documents} validation documents: {', '.join(parts)}" if parts else "not comparable"
        if self.left_out:
            text += f"; {self.left_out} more were left out: the champion's split settings put them into train, or are not known"
        if not parts:
            text += (
                f", and {self.documents} are fewer than the {MIN_DOCUMENTS} that an interval needs: "
                "keep the split settings, give more documents, or move the champion away to start anew"
            )
        return text


def better(differences: Iterable[Interval]) -> bool:
    """Whether the first of two models is better, by its metrics minus the other's: one lies wholly above 0, none wholly below 0."""
    found = list(differences)
    return any(one.above_zero() for one in found) and not any(one.below_zero() for one in found)


def paired_differences(first: Mapping[str, list[float]], second: Mapping[str, list[float]]) -> dict[str, Interval]:
    """By metric: the first model's minus the second's, from `Scores.by_document` on the same windows."""
    counts = np.array(first["windows"])
    return {name: interval_of_sums(np.subtract(first[name], second[name]), counts) for name in first if name != "windows"}


def choose(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the best model.

    `summaries` are `Evaluation.summary()`s on the same validation windows, by name. Models that another one is better than are left out.
    Of the others, which are as good as each other, the one with the highest recall@5 is taken, then the highest cosine. "Better" need
    not be transitive; if each model is beaten by another one, none is left out. Raises `InputError` when the windows differ.
    """
    names = list(summaries)
    _require_same_windows(summaries)

    def beats(one: str, other: str) -> bool:
        return better(paired_differences(summaries[one]["by_document"], summaries[other]["by_document"]).values())

    unbeaten = [name for name in names if not any(beats(other, name) for other in names)]

    def means(name: str) -> tuple[float, float]:
        metrics = summaries[name]["metrics"]
        return metrics["recall_at_5"]["value"], metrics["cosine"]["value"]

    return max(unbeaten or names, key=means)


def compare(dataset: Dataset, challenger: Checkpoint, champion: Checkpoint) -> Comparison:
    """Compare two models in pairs on the validation windows, at the challenger's context length, in all metrics that have a skill.

    Raises `InputError` when the two read different encoders: their vectors cannot be compared.
    """
    champion.config.recipe.require_same(challenger.config.recipe, "the current champion; move it away to start anew")
    seen = trained_on(dataset, champion)
    documents = len(dataset.docs("val")) - len(seen)
    if documents < MIN_DOCUMENTS:
        return Comparison({}, documents, len(seen))
    train, device = challenger.config.train, challenger.model.mean.device
    seen_rows = np.flatnonzero(np.isin(dataset.row_doc, seen))
    windows = make_windows(dataset, "val", train.context_length, train.eval_windows, device, leave_out=seen_rows)
    targets, pool = torch.from_numpy(dataset.vectors[windows.targets]).to(device), unit(dataset.vectors[windows.pool], device)
    found = []
    for checkpoint in (challenger, champion):
        y_dec, y_cos = predict(checkpoint.model, dataset, windows, device)
        found.append(score(y_dec, y_cos, targets, pool, windows).by_document(windows.docs))
    return Comparison(paired_differences(*found), len(found[0]["windows"]), len(seen))


def trained_on(dataset: Dataset, model: Checkpoint) -> np.ndarray:
    """Validation documents of `dataset` that `model` may have been trained on: int64, ascending.

    A document's split depends on its id and on the split settings alone (`lvm.data.splits`), so these documents are found without the
    dataset that the model was trained on: they are those that its settings put into train. With the same settings there are none, and
    with settings that are not known it may be any of them.
    """
    docs, settings = dataset.docs("val"), model.config.splits
    if model.config.dataset_digest == dataset.manifest.digest or settings == dataset.manifest.splits:
        return docs[:0]
    if settings is None:
        return docs
    groups = duplicate_groups(np.split(dataset.text_codes, dataset.starts[1:-1]), settings.min_shared)
    return docs[np.array(assign_splits(dataset.doc_ids, groups, settings))[docs] == "train"]


def _require_same_windows(summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `InputError` when two of the summaries are of different windows."""
    of = {name: (s["context_length"], s["pool"]["sha256"], s["by_document"]["windows"]) for name, s in summaries.items()}
    first, *others = of
    unlike = [name for name in others if of[name] != of[first]]
    if unlike:
        raise InputError(
            f"{first} and {', '.join(unlike)} were evaluated on different windows, so they cannot be compared in pairs: "
            "evaluate them on one dataset at one context_length and one eval_windows"
        )
