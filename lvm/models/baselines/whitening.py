"""Queries times a negative power of the training covariance (whitening; Su et al. 2021, arXiv 2103.15316, whiten both sides).

Directions in which all chunks vary say little about which chunk comes next. Whitening takes weight from them. And some chunks, the hubs,
are near to very many queries (Radovanović et al. 2010). How much of a hub a chunk is can be told from its vector, so a query turns away
from that direction, whatever the pool.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

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

HUB_SHARES = (0.0, 0.25, 0.5, 0.75)
"""Shares of the hubs' direction to choose from; see `hub_direction`."""

HUB_CONTEXTS, HUB_CHUNKS, HUB_QUERIES = 6_000, 10_000, 100
"""Sizes of the samples by which hubs are found, and the queries that count for a chunk."""

HUB_PENALTY = 0.01
"""Penalty of the hubs' least squares, as a share of the mean variance."""

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


def hub_direction(data: FittingData, query: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The direction along which training chunks become hubs of training queries: [D].

    A chunk's hubness is its mean cosine to the `HUB_QUERIES` queries nearest to it; least squares on the chunk's unit vector give the
    direction. `query` maps centred contexts [B, T, D] to queries. Both sides are fixed samples of the training documents.
    """
    rng = np.random.default_rng(0)
    contexts, chunks = (
        np.sort(rng.choice(rows, min(len(rows), size), replace=False))
        for rows, size in ((data.rows, HUB_CONTEXTS), (data.dataset.rows("train"), HUB_CHUNKS))
    )
    queries = F.normalize(torch.cat([query(context) for context in data.contexts(contexts)]), dim=-1)
    units = F.normalize(data.take(chunks) + data.mean, dim=-1)
    hubness = torch.cat([(part @ queries.T).topk(min(HUB_QUERIES, len(queries)), dim=1).values.mean(1) for part in units.split(1_024)])
    centred = (units - units.mean(0)).double().cpu()
    gram = centred.T @ centred
    gram.diagonal().add_(HUB_PENALTY * gram.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny))
    target = (hubness - hubness.mean()).double().cpu()
    return torch.linalg.solve(gram, centred.T @ target).float()


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
    """The linear prediction's weight beside the mean, covariance and power, the share of the hubs' direction: each best on validation."""
    ewma_fitted, ridge_fitted = data.of("whitened_ewma"), data.of("ridge")
    mean = data.sums(data.val.targets, ewma_fitted["weights"][None])[:, 0]
    linear = data.predictions(ridge_direction, "ridge")
    matrices = _matrices(data)

    def score(weight: float, matrix: tuple[bool, float]) -> float:
        return data.retrieval((mean + weight * linear) @ matrices[matrix])

    matrix = bool(ewma_fitted["within"]), float(ewma_fitted["power"])
    weight = max(RIDGE_WEIGHTS, key=lambda w: score(w, matrix))
    matrix = max(matrices, key=lambda m: score(weight, m))

    def query(centred_BTD: torch.Tensor) -> torch.Tensor:
        own = last_sums(centred_BTD, ewma_fitted["weights"][None])[:, 0]
        return (own + weight * ridge_direction(centred_BTD, ridge_fitted)) @ matrices[matrix]

    hub, own = hub_direction(data, query).to(data.device), F.normalize((mean + weight * linear) @ matrices[matrix], dim=-1)
    share = max(HUB_SHARES, key=lambda s: data.retrieval(own - s * hub))
    return {"ridge_weight": number(weight), "hub": share * hub, "hub_share": number(share), **_chosen(matrix, matrices)}


def _chosen(matrix: tuple[bool, float], matrices: dict[tuple[bool, float], torch.Tensor]) -> Parameters:
    """`within`, `power` and the whitener itself, `matrix` [D, D]."""
    return {"matrix": matrices[matrix], "within": number(matrix[0]), "power": number(matrix[1])}


@BASELINES.register("whitened_ewma", fit=fit_whitened_ewma)
def whitened_ewma(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The whitened exponentially weighted mean of the centred context. A query: its length says nothing."""
    return last_sums(context_BTD - mean_D, parameters["weights"][None])[:, 0] @ parameters["matrix"]


@BASELINES.register("whitened_ridge", fit=fit_whitened_ridge, uses=("ridge", "whitened_ewma"))
def whitened_ridge(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The same with a share of the linear prediction beside the mean, turned away from hubs."""
    centred = context_BTD - mean_D
    mean = last_sums(centred, parameters["whitened_ewma.weights"][None])[:, 0]
    linear = ridge_direction(centred, of("ridge", parameters))
    query = (mean + float(parameters["ridge_weight"]) * linear) @ parameters["matrix"]
    return F.normalize(query, dim=-1) - parameters["hub"]
