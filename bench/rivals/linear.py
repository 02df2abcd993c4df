"""Linear predictors of the next chunk from its context, all solved by normal equations.

Every sum over the training chunks is a matrix product in float32 of a block, added up in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.rivals.problem import Problem, weighted

Predict = Callable[[str], torch.Tensor]
"""Centred predictions [n, D] for the windows of a split."""

OfContexts = Callable[[torch.Tensor], torch.Tensor]
"""Contexts [n, T, D] to predictions [n, D]."""


def features(x_nTD: torch.Tensor, lags: int, decays: tuple[float, ...]) -> torch.Tensor:
    """The last `lags` chunks and the EWMAs of several decays side by side: [n, (lags + decays) * D]."""
    return torch.cat([*x_nTD[:, :lags].unbind(1), *(weighted(x_nTD, decay) for decay in decays)], 1)


# A weight for each lag, or for each lag on each axis


@dataclass(frozen=True)
class AxisWeights:
    """A weight for each axis and lag: the prediction of axis d is the sum over t of weights[d, t] * x[t, d]."""

    weights_DT: torch.Tensor

    def __call__(self, x_nTD: torch.Tensor) -> torch.Tensor:
        """[n, D]"""
        return torch.einsum("ntd,dt->nd", x_nTD, self.weights_DT)


def _lag_sums(p: Problem, back: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """For each axis the products of its lags [D, T, T] and of its lags with the target [D, T]."""
    dim, length = p.centred.shape[1], p.length
    gram = torch.zeros(dim, length, length, dtype=torch.float64, device=p.device)
    cross = torch.zeros(dim, length, dtype=torch.float64, device=p.device)
    for rows, x in p.contexts(p.examples(back), back):
        x_DnT = x.permute(2, 0, 1).contiguous()
        gram += (x_DnT.transpose(1, 2) @ x_DnT).double()
        cross += (x_DnT.transpose(1, 2) @ p.centred[torch.as_tensor(rows, device=p.device)].T[:, :, None])[..., 0].double()
    return gram, cross


def axis_weights(p: Problem, shrink: float, back: float) -> AxisWeights:
    """Least squares of every axis on its own lags, drawn towards the lag weights that are common to all axes.

    `shrink` is a penalty in units of the lags' mean square; infinity gives the common weights. `back` is what an example read
    backwards counts.
    """
    gram, cross = p.keep(("lags", False), lambda: _lag_sums(p, False))
    if back:
        other = p.keep(("lags", True), lambda: _lag_sums(p, True))
        gram, cross = gram + back * other[0], cross + back * other[1]
    common_T = torch.linalg.solve(gram.sum(0), cross.sum(0))
    if shrink == float("inf"):
        return AxisWeights(common_T.expand(len(gram), -1).float())
    eye = torch.eye(p.length, dtype=torch.float64, device=p.device)
    penalised = gram + max(shrink, 1e-6) * eye * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    return AxisWeights((common_T + torch.linalg.solve(penalised, cross - gram @ common_T)).float())


# Ridge regression, of the target or of what the weights above leave


@dataclass(frozen=True)
class Ridge:
    """What the ridge is fitted on: the last `lags` chunks and EWMAs, on top of `start` or of nothing."""

    lags: int = 0
    decays: tuple[float, ...] = ()
    start: tuple[float, float] | None = None
    """`shrink` and `back` of `axis_weights`."""

    back: float = 0.0
    """What an example read backwards counts."""

    by_document: float = 0.0
    """Each example weighs (chunks of its document) ** -by_document."""

    spread: bool = False
    """Whether the features stand twice, the second time multiplied by how well the last chunk agrees with those before it."""

    def __str__(self) -> str:
        changed = {name: value for name, value in vars(self).items() if value != getattr(Ridge(), name)}
        return ", ".join(f"{name} {value}" for name, value in changed.items())

    def features(self, x_nTD: torch.Tensor) -> torch.Tensor:
        """[n, F]"""
        found = features(x_nTD, self.lags, self.decays)
        if not self.spread:
            return found
        before = x_nTD[:, 1:].mean(1)
        agreement = torch.cosine_similarity(x_nTD[:, 0], before) - 0.3
        return torch.cat([found, 2 * agreement[:, None] * found], 1)

    def under(self, p: Problem) -> OfContexts:
        """What the ridge is added to, as a function of contexts."""
        return axis_weights(p, *self.start) if self.start else lambda x: torch.zeros_like(x[:, 0])


def _ridge_sums(p: Problem, of: Ridge, back: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Products of the features [F, F], and of features and what is left to predict [F, D]."""
    under, dim = of.under(p), p.centred.shape[1]
    size = of.features(p.centred[None, : p.length]).shape[1]
    gram = torch.zeros(size, size, dtype=torch.float64, device=p.device)
    cross = torch.zeros(size, dim, dtype=torch.float64, device=p.device)
    counts = torch.as_tensor(p.dataset.starts[1:] - p.dataset.starts[:-1], device=p.device, dtype=torch.float32)
    docs = torch.as_tensor(p.dataset.row_doc, device=p.device)
    for rows, x in p.contexts(p.examples(back), back):
        at = torch.as_tensor(rows, device=p.device)
        f = of.features(x)
        g = f if not of.by_document else f * (counts[docs[at]][:, None] / counts.mean()) ** -of.by_document
        gram += (g.T @ f).double()
        cross += (g.T @ (p.centred[at] - under(x))).double()
    return gram, cross


def ridge(p: Problem, of: Ridge, penalty_lags: float, penalty_ewmas: float, rank: int = 0) -> Predict:
    """Ridge regression; penalties in units of each group's mean square. `rank` > 0 keeps that many directions of the fitted values."""

    def sums() -> tuple[torch.Tensor, torch.Tensor]:
        gram, cross = _ridge_sums(p, of, False)
        if of.back:
            other = _ridge_sums(p, of, True)
            gram, cross = gram + of.back * other[0], cross + of.back * other[1]
        return gram, cross

    gram, cross = p.keep(("ridge", of), sums)

    def solve() -> torch.Tensor:
        dim, penalised = p.centred.shape[1], gram.clone()
        for group in range(len(gram) // dim):
            own = penalised.diagonal()[group * dim : (group + 1) * dim]
            own += (penalty_lags if group < of.lags else penalty_ewmas) * own.mean()
        found = torch.cholesky_solve(cross, torch.linalg.cholesky(penalised))
        if rank:  # the leading directions of the fitted values: Izenman 1975, with the ridge's own inner product
            fitted = found.T @ gram @ found
            directions = torch.linalg.eigh(fitted)[1][:, -rank:]
            found = found @ directions @ directions.T
        return found.float()

    coefficients = p.keep(("coefficients", of, penalty_lags, penalty_ewmas, rank), solve)
    under = of.under(p)

    def predict(split: str) -> torch.Tensor:
        key = ("linear", of, penalty_lags, penalty_ewmas, rank, split)
        return p.keep(key, lambda: p.map(lambda x: under(x) + of.features(x) @ coefficients, split))

    return predict
