"""The encoder's own moments, which outputs are normalised by and held against."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lvm.data.dataset import Dataset


@dataclass(frozen=True)
class EncoderStatistics:
    """Cached moments of the encoder on the training chunks."""

    mean: torch.Tensor
    """[D]"""

    std: torch.Tensor
    """[D]"""

    norm: float
    """Mean Euclidean norm."""

    unit_std: torch.Tensor
    """[D], deviation of the vectors scaled to unit length."""


def encoder_statistics(dataset: Dataset, device: torch.device) -> EncoderStatistics:
    """The encoder's moments over the training chunks, summed in float64 a block at a time."""
    rows = dataset.rows("train")
    sums = torch.zeros(4, dataset.dim, dtype=torch.float64)
    norms = 0.0
    for start in range(0, len(rows), 8_192):
        raw = torch.from_numpy(dataset.vectors[rows[start : start + 8_192]]).double()
        scaled = F.normalize(raw, dim=-1)
        sums += torch.stack([raw.sum(0), raw.square().sum(0), scaled.sum(0), scaled.square().sum(0)])
        norms += float(raw.norm(dim=-1).sum())
    mean, square, unit_mean, unit_square = sums / len(rows)
    return EncoderStatistics(
        mean=mean.float().to(device),
        std=(square - mean.square()).clamp_min(0).sqrt().float().to(device),
        norm=norms / len(rows),
        unit_std=(unit_square - unit_mean.square()).clamp_min(0).sqrt().float().to(device),
    )
