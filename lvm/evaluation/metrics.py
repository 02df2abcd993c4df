"""How varied a set of vectors is: the metrics that show a collapse."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Spread:
    """Spread of a set of vectors, scaled to unit length unless said otherwise."""

    pairwise_cosine: float
    """Mean cosine of two different vectors."""

    effective_rank: float
    """Exponential of the entropy of the normalised singular values (Roy & Vetterli 2007)."""

    mean: np.ndarray
    """[D]: mean of each dimension."""

    std: np.ndarray
    """[D]: standard deviation of each dimension."""

    norm: float
    """Mean norm before the scaling."""

    raw_mean: np.ndarray
    """[D]: mean of each dimension before the scaling."""

    raw_std: np.ndarray
    """[D]: standard deviation of each dimension before the scaling."""


def spread(vectors_ND: torch.Tensor) -> Spread:
    """The spread of vectors [N, D], computed in float64."""
    if vectors_ND.device.type == "mps":  # MPS has neither float64 nor eigenvalues
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
    """Ratio of predicted to target deviation, averaged over live dimensions, on unit vectors.

    A dimension is dead when its target deviation is below `dead_share` of the mean deviation (MiniLM has three such
    dimensions); its ratio would be noise.
    """
    live = target.std > dead_share * target.std.mean()
    return float((predicted.std[live] / target.std[live]).mean())
