"""What baselines are fitted on, and how good a choice is: the training contexts, the validation windows, and two scores."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.data.statistics import training_mean
from lvm.data.windows import Windows, make_windows, retrieval_ranks, unit
from lvm.errors import InputError
from lvm.models.baselines.fitted import Parameters
from lvm.models.weighted_sums import last_sums

BLOCK, CPU_BLOCK = 4_096, 512
"""Contexts of eight chunks that are in memory at once. On the CPU fewer are faster: they stay in its cache."""


@dataclass(frozen=True)
class FittingData:
    """What a baseline is fitted on: it learns from the training split and chooses on validation windows."""

    dataset: Dataset
    context_length: int
    mean: torch.Tensor
    """[D]: mean of the training chunks, on `device`."""

    rows: np.ndarray
    """int64 [N]: every training chunk that has a full context before it; the target of that context."""

    train: np.ndarray
    """int64: every training chunk."""

    val: Windows
    device: torch.device
    vectors: torch.Tensor | None
    """[rows of the dataset, D]: on an accelerator all vectors are in its memory; None where the mapped file is read, on the CPU."""

    targets: torch.Tensor
    """[M, D]: the targets of `val`."""

    pool: torch.Tensor
    """[P, D]: the pool of `val` at unit length."""

    fitted: dict[str, Parameters] = field(default_factory=dict)
    """What the baselines before this one fitted, by name, on the CPU."""

    @property
    def precise(self) -> torch.dtype:
        """The type for sums over the corpus: float64, where the device has it."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def of(self, name: str) -> Parameters:
        """What an earlier baseline fitted, on `device`; numbers stay on the CPU."""
        return {key: value.to(self.device) if value.ndim else value for key, value in self.fitted[name].items()}

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Centred vectors of some rows, on `device`: `rows.shape` + [D]."""
        if self.vectors is None:
            return torch.from_numpy(self.dataset.vectors[rows]) - self.mean
        return self.vectors[torch.from_numpy(rows).to(self.device)] - self.mean

    def turned(self, axes_DD: torch.Tensor) -> "FittingData":
        """The same data with every vector in the coordinates of orthonormal `axes_DD`, one a column: turned once, not in every pass."""
        vectors = torch.empty(self.dataset.n_rows, self.dataset.dim, device=self.device)
        for start in range(0, len(vectors), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(vectors)))
            vectors[start : start + BLOCK] = (self.take(rows) + self.mean) @ axes_DD
        return replace(self, vectors=vectors, mean=self.mean @ axes_DD, targets=self.targets @ axes_DD)

    def contexts(self, targets: np.ndarray) -> Iterator[torch.Tensor]:
        """Centred contexts of `targets` in blocks [<= BLOCK, T, D]."""
        block = max(1, (CPU_BLOCK if self.device.type == "cpu" else BLOCK) * 8 // max(self.context_length, 8))
        for start in range(0, len(targets), block):
            yield self.take(targets[start : start + block, None] + np.arange(-self.context_length, 0))

    def training_runs(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The training chunks in runs of `size` contexts, each read once although contexts overlap: centred [B + T, D], and a mask [B].

        Where the mask at p is true, chunks p to p + T - 1 are a context of one document, and chunk p + T is its target. Read from the
        end, both flipped, a run is one of the documents read from theirs.
        """
        docs, reach = self.dataset.row_doc[self.train], self.context_length
        whole = docs[:-reach] == docs[reach:]
        for start in range(0, len(whole), size):
            mask = whole[start : start + size]
            if mask.any():
                yield self.take(self.train[start : start + len(mask) + reach]), torch.from_numpy(mask).to(self.device)

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
    vectors = None if device.type == "cpu" else torch.from_numpy(np.array(dataset.vectors)).to(device)
    targets = torch.from_numpy(dataset.vectors[val.targets]).to(device)
    pool = unit(dataset.vectors[val.pool], device)
    return FittingData(
        dataset, context_length, training_mean(dataset).to(device), rows, dataset.rows("train"), val, device, vectors, targets, pool
    )
