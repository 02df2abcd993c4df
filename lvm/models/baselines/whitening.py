"""Queries times a negative power of the training covariance (whitening; Su et al. 2021, arXiv 2103.15316, whiten both sides).

Directions in which all chunks vary say little about which chunk comes next. Whitening takes weight from them.
"""

import torch

from lvm.config import BASELINES
from lvm.data.dataset import Dataset
from lvm.data.statistics import training_covariance, within_covariance
from lvm.models.baselines.fitted import Parameters, number, of
from lvm.models.baselines.fitting import FittingData
from lvm.models.baselines.ridge import ridge_direction
from lvm.models.weighted_sums import ewma_weights, last_sums

DECAYS = (0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
"""Decays to choose from."""

POWERS = (0.0, 0.25, 0.35, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Powers of the inverse covariance to choose from. A power of 0 leaves the query as it is."""

RIDGE_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Weights of ridge regression beside the mean, to choose from."""

FLOOR = 1e-3
"""Least eigenvalue of the covariance, as a share of their mean: a dimension that never varies would otherwise decide alone."""


def whitener(covariance_DD: torch.Tensor, power: float) -> torch.Tensor:
    """The covariance to the power of -`power`, scaled so that it keeps the mean eigenvalue's direction as it is: float32 [D, D].

    Symmetric. A covariance of zero gives the identity.
    """
    values, vectors = torch.linalg.eigh(covariance_DD)
    mean = values.clamp_min(0).mean()
    if not mean > 0:
        return torch.eye(len(values))
    scaled = (values / mean).clamp_min(FLOOR) ** -power
    return ((vectors * scaled) @ vectors.T).float()


def whitening_covariance(dataset: Dataset, within: bool) -> torch.Tensor:
    """Covariance [D, D] of the training chunks around the training mean, or `within` each document, around the document's own mean."""
    return within_covariance(dataset) if within else training_covariance(dataset)


def _matrices(data: FittingData) -> dict[tuple[bool, float], torch.Tensor]:
    """The whitener of every covariance and power to choose from."""
    both = {within: whitening_covariance(data.dataset, within) for within in (False, True)}
    return {(within, power): whitener(both[within], power).to(data.device) for within in both for power in POWERS}


def fit_whitened_ewma(data: FittingData) -> Parameters:
    """Decay, covariance and power with the best retrieval on validation, chosen in turn until none changes."""
    weights = torch.stack([ewma_weights(decay, data.context_length) for decay in DECAYS]).to(data.device)
    means = data.sums(data.val.targets, weights)
    matrices = _matrices(data)
    scores: dict[tuple[float, tuple[bool, float]], float] = {}

    def score(decay: float, matrix: tuple[bool, float]) -> float:
        if (decay, matrix) not in scores:
            scores[decay, matrix] = data.retrieval(means[:, DECAYS.index(decay)] @ matrices[matrix])
        return scores[decay, matrix]

    best, before = (0.7, (False, 0.5)), None
    while best != before:
        before = best
        decay = max(DECAYS, key=lambda d: score(d, before[1]))
        best = decay, max(matrices, key=lambda m: score(decay, m))
    decay, matrix = best
    return {"weights": weights[DECAYS.index(decay)].clone(), "decay": number(decay), **_chosen(matrix, matrices)}


def fit_whitened_ridge(data: FittingData) -> Parameters:
    """The weight of the linear prediction beside the mean, then covariance and power, with the best retrieval on validation."""
    ewma_fitted = data.of("whitened_ewma")
    mean = data.sums(data.val.targets, ewma_fitted["weights"][None])[:, 0]
    linear = data.predictions(ridge_direction, "ridge")
    matrices = _matrices(data)

    def score(weight: float, matrix: tuple[bool, float]) -> float:
        return data.retrieval((mean + weight * linear) @ matrices[matrix])

    matrix = bool(ewma_fitted["within"]), float(ewma_fitted["power"])
    weight = max(RIDGE_WEIGHTS, key=lambda w: score(w, matrix))
    matrix = max(matrices, key=lambda m: score(weight, m))
    return {"ridge_weight": number(weight), **_chosen(matrix, matrices)}


def _chosen(matrix: tuple[bool, float], matrices: dict[tuple[bool, float], torch.Tensor]) -> Parameters:
    """`within`, `power` and the whitener itself, `matrix` [D, D]."""
    return {"matrix": matrices[matrix], "within": number(matrix[0]), "power": number(matrix[1])}


@BASELINES.register("whitened_ewma", fit=fit_whitened_ewma)
def whitened_ewma(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The whitened exponentially weighted mean of the centred context. A query: its length says nothing."""
    return last_sums(context_BTD - mean_D, parameters["weights"][None])[:, 0] @ parameters["matrix"]


@BASELINES.register("whitened_ridge", fit=fit_whitened_ridge, uses=("ridge", "whitened_ewma"))
def whitened_ridge(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The same with a share of the linear prediction beside the mean."""
    centred = context_BTD - mean_D
    mean = last_sums(centred, parameters["whitened_ewma.weights"][None])[:, 0]
    linear = ridge_direction(centred, of("ridge", parameters))
    return (mean + float(parameters["ridge_weight"]) * linear) @ parameters["matrix"]
