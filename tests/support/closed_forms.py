"""Baselines with random numbers, for predictors that start from them."""

import torch
from torch.nn import functional as F

from lvm.config import BASELINES
from lvm.models.baselines import Baselines
from lvm.models.baselines.fitted import number
from lvm.models.weighted_sums import ewma_weights


def random_baselines(mean: torch.Tensor, length: int = 4, contexts: int = 90, seed: int = 0) -> Baselines:
    """Baselines of every kind for contexts of `length` chunks, with an index of that many training contexts."""
    generator, dim = torch.Generator().manual_seed(seed), len(mean)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    parameters = {
        "ewma": {"decay": number(0.8)},
        "centred_ewma": {"decay": number(0.6)},
        "ridge": {
            "axes": torch.linalg.qr(normal(dim, dim))[0],
            "axis_weights": 0.3 * normal(length, dim),
            "weights": torch.stack([ewma_weights(0.5, length), ewma_weights(0.8, length)]),
            "coefficients": 0.1 * normal(2 * dim, dim),
        },
        "ridge_knn": {
            "keys": F.normalize(normal(contexts, dim), dim=-1).half(),
            "successors": normal(contexts, dim).half(),
            "weights": ewma_weights(0.5, length),
            "decay": number(0.5),
            "temperature": number(0.1),
            "weight": number(0.2),
        },
        "whitened_ewma": {"weights": ewma_weights(0.7, length), "matrix": torch.eye(dim)},
        "whitened_ridge": {
            "matrix": normal(dim, dim),
            "ridge_weight": number(0.5),
            "hub": 0.1 * normal(dim),
            "within": number(0),
            "power": number(0.5),
        },
    }
    return Baselines(length, mean, tuple(BASELINES), parameters)
