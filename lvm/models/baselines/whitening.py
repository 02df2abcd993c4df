"""Queries times a negative power of the training covariance (whitening; Su et al. 2021, arXiv 2103.15316, whiten both sides).

Directions in which all chunks vary say little about which chunk comes next. Whitening takes weight from them. And some chunks, the hubs,
are near to very many queries (Radovanović et al. 2010). How much of a hub a chunk is can be told from its vector, so a query turns away
from that direction, whatever the pool.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from torch.nn import functional as F

from lvm.config import BASELINES
from lvm.data.dataset import Dataset
from lvm.data.statistics import training_covariance, within_covariance
from lvm.models.baselines.choosing import climb
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

HUB_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
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
    return whiteners(covariance_DD)(power)


def whiteners(covariance_DD: torch.Tensor) -> Callable[[float], torch.Tensor]:
    """`whitener` for many powers of one covariance, whose axes are found once."""
    values, vectors = torch.linalg.eigh(covariance_DD)
    mean = values.clamp_min(0).mean()

    def of_power(power: float) -> torch.Tensor:
        if not mean > 0:
            return torch.eye(len(values))
        scaled = (values / mean).clamp_min(FLOOR) ** -power
        return ((vectors * scaled) @ vectors.T).float()

    return of_power


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


Matrix = tuple[bool, float]
"""Covariance (`within` documents or not) and power of a whitener."""


def _matrices(data: FittingData) -> Callable[[Matrix], torch.Tensor]:
    """The whitener of a covariance and a power, on `data.device`."""
    both = {within: whiteners(whitening_covariance(data.dataset, within)) for within in (False, True)}
    return cache(lambda matrix: both[matrix[0]](matrix[1]).to(data.device))


def _best_matrix(score: Callable[[Matrix], float], start: Matrix) -> Matrix:
    """Covariance and power with the best score; for each covariance the walk starts from the power of `start`."""

    def top(within: bool) -> Matrix:
        return within, climb(POWERS, lambda power: score((within, power)), start[1])

    return max(top(start[0]), top(not start[0]), key=score)


def fit_whitened_ewma(data: FittingData) -> Parameters:
    """Decay, covariance and power with the best retrieval on validation, chosen in turn until none changes."""
    matrices = _matrices(data)

    @cache
    def mean(decay: float) -> torch.Tensor:
        return data.sums(data.val.targets, ewma_weights(decay, data.context_length)[None].to(data.device))[:, 0]

    @cache
    def score(matrix: Matrix, decay: float) -> float:
        return data.retrieval(mean(decay) @ matrices(matrix))

    decay, matrix, before = 0.65, (True, 0.5), None
    while (decay, matrix) != before:
        before = decay, matrix
        decay = climb(DECAYS, partial(score, matrix), decay)
        matrix = _best_matrix(partial(score, decay=decay), matrix)
    return {"weights": ewma_weights(decay, data.context_length), "decay": number(decay), **_chosen(matrix, matrices)}


def fit_whitened_ridge(data: FittingData) -> Parameters:
    """The linear prediction's weight beside the mean, the power, the share of the hubs' direction: each best on validation, in turn.

    The covariance stays that of `whitened_ewma`, whose best power is the first to be tried.
    """
    ewma_fitted, ridge_fitted = data.of("whitened_ewma"), data.of("ridge")
    mean = data.sums(data.val.targets, ewma_fitted["weights"][None])[:, 0]
    linear = data.predictions(ridge_direction, "ridge")
    matrices = _matrices(data)

    @cache
    def score(matrix: Matrix, weight: float) -> float:
        return data.retrieval((mean + weight * linear) @ matrices(matrix))

    within, power = bool(ewma_fitted["within"]), float(ewma_fitted["power"])
    weight = climb(RIDGE_WEIGHTS, partial(score, (within, power)), 1.0)
    matrix = within, climb(POWERS, lambda value: score((within, value), weight), power)

    def query(centred_BTD: torch.Tensor) -> torch.Tensor:
        own = last_sums(centred_BTD, ewma_fitted["weights"][None])[:, 0]
        return (own + weight * ridge_direction(centred_BTD, ridge_fitted)) @ matrices(matrix)

    hub, own = hub_direction(data, query).to(data.device), F.normalize((mean + weight * linear) @ matrices(matrix), dim=-1)
    share = climb(HUB_SHARES, lambda value: data.retrieval(own - value * hub), 0.5)
    return {"ridge_weight": number(weight), "hub": share * hub, "hub_share": number(share), **_chosen(matrix, matrices)}


def _chosen(matrix: Matrix, matrices: Callable[[Matrix], torch.Tensor]) -> Parameters:
    """`within`, `power` and the whitener itself, `matrix` [D, D]."""
    return {"matrix": matrices(matrix), "within": number(matrix[0]), "power": number(matrix[1])}


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
