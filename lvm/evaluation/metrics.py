"""Collapse metrics: how varied a set of vectors is."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Spread:
    """How varied a set of vectors is, after scaling each to unit length."""

    pairwise_cosine: float
    """Mean cosine of two different vectors."""

    effective_rank: float
    """Exponential of the entropy of the normalised singular values (Roy & Vetterli 2007)."""

    mean: np.ndarray
    """[D]"""

    std: np.ndarray
    """[D]"""

    norm: float
    """Mean norm before scaling."""

    raw_mean: np.ndarray
    """[D], of the vectors as they are."""

    raw_std: np.ndarray
    """[D], of the vectors as they are."""


def spread(vectors_ND: torch.Tensor) -> Spread:
    """Collapse metrics of a set of vectors."""
    if vectors_ND.device.type == "mps":  # it has neither float64 nor eigenvalues
        vectors_ND = vectors_ND.cpu()
    unit = F.normalize(vectors_ND.double(), dim=-1)
    n = len(unit)
    total = unit.sum(0)
    pairwise = float((total @ total - unit.square().sum()) / (n * (n - 1)))
    centred = unit - unit.mean(0)
    singular = torch.linalg.eigvalsh(centred.T @ centred).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return Spread(
        pairwise_cosine=pairwise,
        effective_rank=float(entropy.exp()),
        mean=unit.mean(0).cpu().numpy(),
        std=unit.std(0).cpu().numpy(),
        norm=float(vectors_ND.norm(dim=-1).mean()),
        raw_mean=vectors_ND.double().mean(0).cpu().numpy(),
        raw_std=vectors_ND.double().std(0).cpu().numpy(),
    )


def sigma_ratio(predicted: Spread, target: Spread, dead_share: float = 0.2) -> float:
    """Mean over live dimensions of predicted over target deviation, on unit vectors.

    A dimension is dead when its target deviation is under `dead_share` of the mean one (MiniLM
    has three): a ratio there would be noise.
    """
    live = target.std > dead_share * target.std.mean()
    return float((predicted.std[live] / target.std[live]).mean())
