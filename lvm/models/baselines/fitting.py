"""What baselines are fitted on, and how good a choice is: the training contexts, the validation windows, and two scores."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.data.statistics import training_mean
from lvm.data.windows import Windows, make_windows, retrieval_ranks, unit
from lvm.errors import InputError
from lvm.models.baselines.fitted import Parameters
from lvm.models.weighted_sums import last_sums

BLOCK = 4_096
"""Contexts that are in memory at once."""


@dataclass(frozen=True)
class FittingData:
    """What a baseline is fitted on: it learns from the training split and chooses on validation windows."""

    dataset: Dataset
    context_length: int
    mean: torch.Tensor
    """[D]: mean of the training chunks, on `device`."""

    rows: np.ndarray
    """int64 [N]: every training chunk that has a full context; the target of that context."""

    val: Windows
    device: torch.device
    vectors: torch.Tensor
    """[rows of the dataset, D]: on an accelerator all of them, otherwise mapped from the file."""

    targets: torch.Tensor
    """[M, D]: the targets of `val`."""

    pool: torch.Tensor
    """[P, D]: the pool of `val` at unit length."""

    fitted: dict[str, Parameters] = field(default_factory=dict)
    """What the baselines before this one fitted, by name, on the CPU."""

    def of(self, name: str) -> Parameters:
        """What an earlier baseline fitted, on `device`; numbers stay on the CPU."""
        return {key: value.to(self.device) if value.ndim else value for key, value in self.fitted[name].items()}

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Centred vectors of some rows, on `device`: `rows.shape` + [D]."""
        index = torch.from_numpy(rows)
        return self.vectors[index.to(self.vectors.device)].to(self.device) - self.mean

    def contexts(self, targets: np.ndarray) -> Iterator[torch.Tensor]:
        """Centred contexts of `targets` in blocks: [<= BLOCK, T, D]."""
        block = max(1, BLOCK * 8 // max(self.context_length, 8))
        for start in range(0, len(targets), block):
            yield self.take(targets[start : start + block, None] + np.arange(-self.context_length, 0))

    def sums(self, targets: np.ndarray, weights_KT: torch.Tensor) -> torch.Tensor:
        """Weighted sums over the centred contexts of `targets`: [len(targets), K, D]; see `last_sums`."""
        return torch.cat([last_sums(part, weights_KT) for part in self.contexts(targets)])

    def predictions(self, direction: Callable[[torch.Tensor, Parameters], torch.Tensor], name: str) -> torch.Tensor:
        """`direction` of every validation context, with what baseline `name` fitted: [M, D]."""
        fitted = self.of(name)
        return torch.cat([direction(context, fitted) for context in self.contexts(self.val.targets)])

    def cosine(self, direction_MD: torch.Tensor) -> float:
        """Mean cosine of the mean plus `direction_MD` and the validation targets."""
        return float(F.cosine_similarity(direction_MD + self.mean, self.targets).mean())

    def retrieval(self, query_MD: torch.Tensor) -> float:
        """Mean of recall@1, recall@5 and the mean reciprocal rank on the validation windows: one score for the three."""
        ranks = retrieval_ranks(query_MD, self.pool, self.val.answer, self.val.excluded)
        return float(np.mean([(ranks <= 1).mean(), (ranks <= 5).mean(), (1 / ranks).mean()]))


def fitting_data(dataset: Dataset, context_length: int, eval_windows: int, device: torch.device) -> FittingData:
    """Gather it. Raises `InputError` when no training or no validation document is longer than `context_length`."""
    rows = dataset.rows("train")
    rows = rows[rows - dataset.starts[dataset.row_doc[rows]] >= context_length]
    if not len(rows):
        raise InputError(
            f"split 'train' of dataset {dataset.path} has no document with more than {context_length} chunks: "
            "give more or longer documents, or a smaller context_length"
        )
    val = make_windows(dataset, "val", context_length, eval_windows, device)
    vectors = (
        torch.from_numpy(np.asarray(dataset.vectors)) if device.type == "cpu" else torch.from_numpy(np.array(dataset.vectors)).to(device)
    )
    targets = torch.from_numpy(dataset.vectors[val.targets]).to(device)
    pool = unit(dataset.vectors[val.pool], device)
    return FittingData(dataset, context_length, training_mean(dataset).to(device), rows, val, device, vectors, targets, pool)
