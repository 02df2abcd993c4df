"""The successors of the nearest training contexts: k nearest neighbours (kNN), as in kNN language models (Khandelwal et al. 2020).

A context is found again by its exponentially weighted mean. The index is a capped sample of the training contexts in float16. It travels in
the checkpoint, so that foreign documents and every night meet the same rival. The search is exact, a block of queries at a time.
"""

import numpy as np
import torch
from torch.nn import functional as F

from lvm.config import BASELINES
from lvm.models.baselines.fitted import Parameters, number, of
from lvm.models.baselines.fitting import FittingData
from lvm.models.baselines.ridge import ridge_direction
from lvm.models.weighted_sums import ewma_weights, last_sums

INDEX_CONTEXTS = 100_000
"""Training contexts in the index at most."""

NEIGHBOURS = 64
"""Training contexts whose successors are averaged; all there are where the index holds fewer."""

DECAYS = (0.5, 0.6)
"""Decays of the mean by which a context is found, to choose from."""

TEMPERATURES = (0.05, 0.1)
"""Temperatures of the softmax over the neighbours' cosines, to choose from."""

WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
"""Weights of the neighbours beside ridge regression, to choose from."""

BLOCK_SCORES = 8_000_000
"""Cosines that are in memory at once."""

GATHERED_AT_ONCE = 256
"""Queries whose neighbours' successors are in memory at once."""


def nearest(query_BD: torch.Tensor, keys_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines to the nearest contexts, best first, and which they are: [B, K] each."""
    keys = keys_ND.to(query_BD)
    count, rows = min(NEIGHBOURS, len(keys)), max(1, BLOCK_SCORES // len(keys))
    found = [(part @ keys.T).topk(count, dim=1) for part in F.normalize(query_BD, dim=-1).split(rows)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def mean_successor(cosines_BK: torch.Tensor, which_BK: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Mean of the centred successors of some contexts, weighted by a softmax of their cosines: [B, D]."""
    weights, values = (cosines_BK / float(parameters["temperature"])).softmax(1), parameters["successors"]
    # A block of queries at a time: the successors of all would be many times their predictions.
    parts = zip(weights.split(GATHERED_AT_ONCE), which_BK.split(GATHERED_AT_ONCE), strict=True)
    return torch.cat([torch.einsum("bk,bkd->bd", own, values[which].to(own)) for own, which in parts])


def successors(query_BD: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Mean of the centred successors of the nearest contexts, weighted by a softmax of their cosines to the query: [B, D]."""
    return mean_successor(*nearest(query_BD, parameters["keys"]), parameters)


def fit_neighbours(data: FittingData) -> Parameters:
    """Index, decay, temperature and weight, chosen by cosine on validation.

    `keys` float16 [N, D]: means of training contexts at unit length. `successors` float16 [N, D]: the centred chunk after each.
    """
    rows = data.rows
    if len(rows) > INDEX_CONTEXTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, INDEX_CONTEXTS, replace=False))
    base = data.predictions(ridge_direction, "ridge")
    values = data.take(rows).half()
    best_score, found = -np.inf, Parameters()
    for decay in DECAYS:
        weights = ewma_weights(decay, data.context_length)[None].to(data.device)
        keys = F.normalize(data.sums(rows, weights)[:, 0], dim=-1).half()
        cosines, which = nearest(data.sums(data.val.targets, weights)[:, 0], keys)
        for temperature in TEMPERATURES:
            numbers = {"decay": number(decay), "temperature": number(temperature)}
            tried: Parameters = {"keys": keys, "successors": values, "weights": weights[0], **numbers}
            added = mean_successor(cosines, which, tried)
            for weight in WEIGHTS:
                score = data.cosine(base + weight * added)
                if score > best_score:
                    best_score, found = score, tried | {"weight": number(weight)}
    return found


@BASELINES.register("ridge_knn", fit=fit_neighbours, uses=("ridge",))
def ridge_knn(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Ridge regression plus a share of the mean successor of the nearest training contexts."""
    centred = context_BTD - mean_D
    query = last_sums(centred, parameters["weights"][None])[:, 0]
    return mean_D + ridge_direction(centred, of("ridge", parameters)) + float(parameters["weight"]) * successors(query, parameters)
