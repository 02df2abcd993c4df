"""Baselines with at most one number to fit: the mean vector, the last chunk, exponentially weighted means (EWMA)."""

from collections.abc import Callable
from functools import partial

import torch

from lvm.config import BASELINES
from lvm.models.baselines.choosing import climb
from lvm.models.baselines.fitted import Parameters, number
from lvm.models.baselines.fitting import FittingData
from lvm.models.weighted_sums import ewma_weights, last_sums

DECAYS = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Decays that the exponentially weighted means choose from."""


@BASELINES.register("mean_vector")
def mean_vector(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The mean of the training chunks."""
    return mean_D.expand(len(context_BTD), -1)


@BASELINES.register("copy_last")
def copy_last(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The last chunk of the context."""
    return context_BTD[:, -1]


def fit_decay(data: FittingData, score: Callable[[FittingData, torch.Tensor], float], start: float) -> Parameters:
    """The decay with the best score on validation, found from `start`."""

    def of_decay(decay: float) -> float:
        weights = ewma_weights(decay, data.context_length).to(data.device)
        return score(data, data.sums(data.val.targets, weights[None])[:, 0])

    return {"decay": number(climb(DECAYS, of_decay, start))}


def decayed(centred_BTD: torch.Tensor, decay: float) -> torch.Tensor:
    """Exponentially weighted mean of centred contexts: [B, D]."""
    weights = ewma_weights(decay, centred_BTD.shape[1]).to(centred_BTD)
    return last_sums(centred_BTD, weights[None])[:, 0]


@BASELINES.register("ewma", fit=partial(fit_decay, score=FittingData.cosine, start=0.8))
def ewma(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Exponentially weighted mean of the context; its decay is the best in cosine."""
    return decayed(context_BTD, float(parameters["decay"]))


@BASELINES.register("centred_ewma", fit=partial(fit_decay, score=FittingData.retrieval, start=0.6))
def centred_ewma(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The same without the training mean, which all chunks share; its decay is the best in retrieval."""
    return decayed(context_BTD - mean_D, float(parameters["decay"]))
