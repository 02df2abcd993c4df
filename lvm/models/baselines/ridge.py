"""A linear prediction of the next chunk: weights of each axis over the lags, and ridge regression (Hoerl & Kennard 1970) of the rest.

Ridge regression shrinks towards zero, as if a context said nothing. What a context says first of all is that the next chunk resembles it,
more so along some axes than along others. So each principal axis of the training chunks gets lag weights of its own, by least squares. What
these leave is regressed on a few lags and on means of the whole context, and shrinking then leads back to the axes' weights.
"""

from dataclasses import dataclass

import torch

from lvm.config import BASELINES
from lvm.data.statistics import training_covariance
from lvm.models.baselines.fitted import Parameters, number
from lvm.models.baselines.fitting import FittingData
from lvm.models.weighted_sums import (
    causal_dimension_sums,
    causal_sums,
    ewma_weights,
    lag_weights,
    last_dimension_sums,
    last_sums,
)

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Penalties to choose from, as shares of the group's mean variance."""


BACKWARD_SHARES = (0.0, 0.5)
"""Weights, to choose from, of the training documents read from their end. Most of what a chunk says of its neighbours holds in both
directions, and reading both doubles what little text there is."""

CONTEXTS_PER_FEATURE = 20
"""A feature set that has more features than a twentieth of the training contexts is not tried: it would only cost time."""

RUN, CONTEXTS_AT_ONCE = 1_024, 256
"""Training contexts whose sums are taken at once, at most and at least. The more features there are, the more a long run pays: adding up
in float64 costs as much for each run, and the features' weighted sums as much more for each context as a run is longer."""

AXIS_PENALTY = 1e-3
"""Penalty on an axis' lag weights, as a share of its variance: it only keeps the equations solvable."""


@dataclass(frozen=True)
class FeatureSet:
    """Features that ridge regression may read: lags, and exponentially weighted means (EWMA) of the whole context."""

    lags: int
    """The latest chunks, each a feature."""

    decays: tuple[float, ...]
    """A mean for each."""

    def groups(self, length: int) -> list[torch.Tensor]:
        """Weights [K, length] of each group that has a penalty of its own. A context of one chunk has one feature."""
        lags = [lag_weights(lag, length) for lag in range(1, min(self.lags, length) + 1)]
        means = [ewma_weights(decay, length) for decay in self.decays] if length > 1 or not lags else []
        return [torch.stack(group) for group in (lags, means) if group]


FEATURES = (FeatureSet(0, (0.5, 0.85)), FeatureSet(4, (0.5, 0.7, 0.85, 0.93, 0.97)))
"""The sets to choose from. Two means are best where there is little text, all where there is much."""


def fit_ridge(data: FittingData) -> Parameters:
    """The axes' weights, then ridge regression with the feature set and the penalties that are best on validation.

    `axes` [D, D]: the principal axes, one a column; all else is in their coordinates. `axis_weights` [T, D]: their lag weights, the latest
    last. `weights` [K, T] make the features from a context. `coefficients` [K * D, D]: the rest of the prediction, from the features.
    `penalty_N`: that of group N, in units of the group's mean variance. `backward_share`: the weight of the documents read from their end.
    """
    axes = torch.linalg.eigh(training_covariance(data.dataset))[1].float().to(data.device)
    turned = data.turned(axes)
    first, *further = FEATURES
    moments = _lag_moments(turned)
    axis = {share: {"axis_weights": _axis_weights(moments, share), "backward_share": number(share)} for share in BACKWARD_SHARES}
    found = [_fit_set(turned, first.groups(data.context_length), own) for own in axis.values()]
    best = max(found, key=lambda pair: pair[0])
    share = float(best[1]["backward_share"])
    for features in further:
        groups = features.groups(data.context_length)
        if len(data.rows) >= CONTEXTS_PER_FEATURE * sum(map(len, groups)) * data.dataset.dim:
            best = max(best, _fit_set(turned, groups, axis[share]), key=lambda pair: pair[0])
    return best[1] | {"axes": axes}


def _lag_moments(data: FittingData) -> torch.Tensor:
    """Sums over every training context and its target of the products of two of their chunks, along each axis: float64 [D, T+1, T+1].

    Chunks that are as far apart are multiplied once, however many contexts hold both. What differs between contexts is which of the
    products count, and a product with a matrix of zeros and ones adds those up.
    """
    places, dim = data.context_length + 1, data.dataset.dim
    moments = torch.zeros(places, places, dim, dtype=data.precise, device=data.device)
    for run, mask in data.training_runs(RUN):
        starts = torch.zeros(places, len(run), device=data.device)
        for place in range(places):
            starts[place, place : place + len(mask)] = mask
        for apart in range(places):
            products = run[: len(run) - apart] * run[apart:]
            sums = (starts[: places - apart, : len(products)] @ products).to(data.precise)
            moments.diagonal(apart, 0, 1).add_(sums.T)
    upper = moments.permute(2, 0, 1)
    return upper + upper.triu(1).mT


def _axis_weights(moments: torch.Tensor, backward_share: float) -> torch.Tensor:
    """Least squares of each axis on its own lags, from `_lag_moments`: [T, D]. An axis along which nothing varies gets weights of zero."""
    backward = moments.flip(1, 2)
    gram = moments[:, :-1, :-1] + backward_share * backward[:, :-1, :-1]
    cross = moments[:, :-1, -1] + backward_share * backward[:, :-1, -1]
    ridge = AXIS_PENALTY * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float32).tiny)
    gram = gram + ridge[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram, cross).float().T.contiguous()


def _fit_set(data: FittingData, groups: list[torch.Tensor], axis: Parameters) -> tuple[float, Parameters]:
    """The best score on validation with one feature set, and all parameters but `axes`, in whose coordinates `data` is.

    `axis` holds the axes' weights and the share of documents read from their end. The penalties are chosen one group after the other.
    """
    weights = torch.cat(groups)
    problem = _normal_equations(data, weights, axis)
    seen = data.sums(data.val.targets, weights.to(data.device)).flatten(1)
    base = torch.cat([last_dimension_sums(context, axis["axis_weights"]) for context in data.contexts(data.val.targets)])
    sizes = [len(group) for group in groups]

    def score(penalties: tuple[float, ...]) -> float:
        return data.cosine(base + seen @ _solve(problem, sizes, penalties))

    tried = {(penalty,) * len(groups): score((penalty,) * len(groups)) for penalty in PENALTIES}
    for group in range(len(groups) if len(groups) > 1 else 0):
        best = max(tried, key=tried.__getitem__)
        nearby = [(*best[:group], penalty, *best[group + 1 :]) for penalty in PENALTIES]
        tried |= {penalties: score(penalties) for penalties in nearby if penalties not in tried}
    best = max(tried, key=tried.__getitem__)
    parameters = axis | {"weights": weights, "coefficients": _solve(problem, sizes, best)}
    return tried[best], parameters | {f"penalty_{n}": number(value) for n, value in enumerate(best)}


def _normal_equations(data: FittingData, weights_KT: torch.Tensor, axis: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram matrix [K * D, K * D] of the features and their products with what the axes leave [K * D, D], over every training context.

    Summed in float64 block by block, so that memory does not grow with the corpus.
    """
    size, dim, length = len(weights_KT) * data.dataset.dim, data.dataset.dim, data.context_length
    gram = torch.zeros(size, size, dtype=data.precise, device=data.device)
    cross = torch.zeros(size, dim, dtype=data.precise, device=data.device)
    weights, backward_share = weights_KT.to(data.device), float(axis["backward_share"])
    for run, mask in data.training_runs(min(RUN, max(CONTEXTS_AT_ONCE, size // 3))):
        parts = []
        for share, chunks, whole in ((1.0, run, mask), (backward_share, run.flip(0), mask.flip(0))):
            if share:
                x = causal_sums(chunks[None], weights)[0, length - 1 : -1].flatten(1)
                base = causal_dimension_sums(chunks[None], axis["axis_weights"])[0, length - 1 : -1]
                parts.append(share**0.5 * torch.cat([x, chunks[length:] - base], 1)[whole])
        x, rest = torch.cat(parts).split([size, dim], 1)
        gram += (x.T @ x).to(data.precise)
        cross += (x.T @ rest).to(data.precise)
    return gram, cross


def _solve(problem: tuple[torch.Tensor, torch.Tensor], sizes: list[int], penalties: tuple[float, ...]) -> torch.Tensor:
    """The coefficients [K * D, D] under a penalty for each group of features."""
    gram, cross = problem
    dim = cross.shape[1]
    penalised, first = gram.clone(), 0
    for size, penalty in zip(sizes, penalties, strict=True):
        own = penalised.diagonal()[first * dim : (first + size) * dim]
        own += penalty * own.mean().clamp_min(torch.finfo(torch.float32).tiny)
        first += size
    return torch.cholesky_solve(cross, torch.linalg.cholesky(penalised)).float()


def ridge_direction(centred_BTD: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The centred prediction [B, D] from centred contexts."""
    turned = centred_BTD @ parameters["axes"]
    rest = last_sums(turned, parameters["weights"]).flatten(1) @ parameters["coefficients"]
    return (last_dimension_sums(turned, parameters["axis_weights"]) + rest) @ parameters["axes"].T


@BASELINES.register("ridge", fit=fit_ridge)
def ridge(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Each axis' lag weights, and ridge regression of the rest on lags and means of the context."""
    return mean_D + ridge_direction(context_BTD - mean_D, parameters)
