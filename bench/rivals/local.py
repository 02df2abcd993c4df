"""Predictors that look at training contexts like the present one: nearest neighbours, and kernel ridge regression."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from bench.rivals.linear import Predict
from bench.rivals.problem import Problem

MOST = 128
"""Neighbours that are looked up; a predictor uses the nearest of them."""


@dataclass(frozen=True)
class Key:
    """Where contexts are compared by cosine: an EWMA, or a prediction, times a power of the training covariance."""

    decay: float = 0.6
    power: float = 0.0
    """The covariance to the minus `power`."""

    def __str__(self) -> str:
        return f"EWMA {self.decay} whitened {self.power}"

    def of(self, p: Problem, split: str, prediction: Predict | None) -> torch.Tensor:
        """Unit keys of a split, [n, D]."""
        found = p.ewma(split, self.decay) if prediction is None else prediction(split)
        return F.normalize(found * p.variances**-self.power, dim=1)


def _neighbours(p: Problem, key: Key, split: str, prediction: Predict | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and positions in the index of the nearest training contexts, [n, K] each, in float16 as a checkpoint would hold them."""
    index = key.of(p, "train", prediction).half().float()
    found = [(part @ index.T).topk(min(MOST, len(index)), 1) for part in key.of(p, split, prediction).split(512)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def successors(
    p: Problem, key: Key, k: int, temperature: float, minus: Predict | None = None, prediction: Predict | None = None
) -> Predict:
    """Softmax-weighted mean of the chunks that follow the `k` nearest training contexts (or of their residuals, `minus` a predictor).

    `prediction` makes the keys from predictions instead of EWMAs.
    """

    def values() -> torch.Tensor:
        found = p.centred[torch.as_tensor(p.rows("train"), device=p.device)]
        return found - minus("train") if minus else found

    def mean(split: str) -> torch.Tensor:
        cosines, at = p.keep(("neighbours", key, split, prediction), lambda: _neighbours(p, key, split, prediction))
        follow = p.keep(("followers", minus), values)
        weights = (cosines[:, :k] / temperature).softmax(1)
        return torch.cat([torch.einsum("nk,nkd->nd", w, follow[i]) for w, i in zip(weights.split(256), at[:, :k].split(256), strict=True)])

    return lambda split: p.keep(("successors", key, k, temperature, minus, prediction, split), lambda: mean(split))


def kernel(p: Problem, key: Key, width: float, penalty: float, landmarks: int, minus: Predict | None = None) -> Predict:
    """Kernel ridge regression by the Nystroem method (Williams & Seeger 2001), of the target or of what `minus` leaves.

    k(a, b) = exp((cos(a, b) - 1) / width) on unit keys; the landmarks are a fixed sample of the indexed contexts.
    """
    keys = p.keep(("keys", key), lambda: key.of(p, "train", None))
    chosen = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))[:landmarks].to(p.device)

    def similar(k: torch.Tensor) -> torch.Tensor:
        return ((k @ keys[chosen].T - 1) / width).exp_()

    def sums() -> tuple[torch.Tensor, torch.Tensor]:
        y = p.centred[torch.as_tensor(p.rows("train"), device=p.device)] - (minus("train") if minus else 0)
        gram = torch.zeros(len(chosen), len(chosen), dtype=torch.float64, device=p.device)
        cross = torch.zeros(len(chosen), y.shape[1], dtype=torch.float64, device=p.device)
        for k, target in zip(keys.split(4096), y.split(4096), strict=True):
            near = similar(k)
            gram += (near.T @ near).double()
            cross += (near.T @ target).double()
        return gram, cross

    def solve() -> torch.Tensor:
        gram, cross = p.keep(("kernel", key, width, landmarks, minus), sums)
        penalised = gram + penalty * similar(keys[chosen]).double()
        penalised.diagonal().add_(1e-7 * penalised.diagonal().mean())
        return torch.cholesky_solve(cross, torch.linalg.cholesky(penalised)).float()

    weights = p.keep(("kernel weights", key, width, penalty, landmarks, minus), solve)

    def predict(split: str) -> torch.Tensor:
        return torch.cat([similar(k) @ weights for k in key.of(p, split, None).split(4096)])

    return predict
