"""Moments of the encoder's vectors over the training chunks: outputs are normalised by them and compared with them."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn import functional as F

from lvm.data.dataset import Dataset

BLOCK_ROWS = 8_192


@dataclass(frozen=True)
class EncoderStatistics:
    """Moments of the training vectors."""

    mean: torch.Tensor
    """[D]"""

    std: torch.Tensor
    """[D], standard deviation of each dimension."""

    norm: float
    """Mean Euclidean norm."""

    unit_std: torch.Tensor
    """[D], standard deviation of each dimension after scaling the vectors to unit length."""


def encoder_statistics(dataset: Dataset, device: torch.device) -> EncoderStatistics:
    """The moments in float32 on `device`."""
    found = training_moments(dataset)
    return EncoderStatistics(
        mean=found.mean.float().to(device), std=found.std.float().to(device), norm=found.norm, unit_std=found.unit_std.float().to(device)
    )


def training_mean(dataset: Dataset) -> torch.Tensor:
    """The mean training vector: float32 [D], on the CPU. The very numbers of `encoder_statistics`."""
    return training_moments(dataset).mean.float()


def training_moments(dataset: Dataset) -> EncoderStatistics:
    """The moments in float64 on the CPU, computed once for each dataset object."""
    if dataset not in _moments:
        _moments[dataset] = _sum_moments(dataset)
    return _moments[dataset]


_moments: WeakKeyDictionary[Dataset, EncoderStatistics] = WeakKeyDictionary()


def _sum_moments(dataset: Dataset) -> EncoderStatistics:
    """Sum the moments in float64, a block of rows at a time."""
    rows = dataset.rows("train")
    sums = torch.zeros(4, dataset.dim, dtype=torch.float64)
    norms = 0.0
    for start in range(0, len(rows), BLOCK_ROWS):
        raw = torch.from_numpy(dataset.vectors[rows[start : start + BLOCK_ROWS]]).double()
        scaled = F.normalize(raw, dim=-1)
        sums += torch.stack([raw.sum(0), raw.square().sum(0), scaled.sum(0), scaled.square().sum(0)])
        norms += float(raw.norm(dim=-1).sum())
    mean, square, unit_mean, unit_square = sums / len(rows)
    return EncoderStatistics(
        mean=mean,
        std=(square - mean.square()).clamp_min(0).sqrt(),
        norm=norms / len(rows),
        unit_std=(unit_square - unit_mean.square()).clamp_min(0).sqrt(),
    )


def training_covariance(dataset: Dataset) -> torch.Tensor:
    """Covariance of the training vectors: float64 [D, D] on the CPU, summed block by block."""
    rows, total = dataset.rows("train"), torch.zeros(dataset.dim, dataset.dim, dtype=torch.float64)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = torch.from_numpy(dataset.vectors[rows[start : start + BLOCK_ROWS]]).double()
        total += block.T @ block
    mean = training_moments(dataset).mean
    return total / len(rows) - torch.outer(mean, mean)


def within_covariance(dataset: Dataset) -> torch.Tensor:
    """Covariance of the training vectors around the mean of their own document: float64 [D, D] on the CPU."""
    total, rows = torch.zeros(dataset.dim, dataset.dim, dtype=torch.float64), 0
    for doc in dataset.docs("train"):
        own = torch.from_numpy(dataset.vectors[dataset.starts[doc] : dataset.starts[doc + 1]].astype(np.float64))
        own -= own.mean(0)
        total += own.T @ own
        rows += len(own)
    return total / rows
