"""Sums over a context with fixed weights: lags, exponentially weighted means (EWMA), weights of each dimension's own.

Baselines and predictors read them.

Weights are a matrix [K, T], the latest chunk last. A chunk before the beginning of a context counts as the training mean, which is zero,
since contexts are centred.
"""

import torch
from torch.nn import functional as F


def ewma_weights(decay: float, length: int) -> torch.Tensor:
    """Weights of the exponentially weighted mean of `length` chunks, which sum to 1: float32 [length]."""
    powers = decay ** torch.arange(length - 1, -1, -1, dtype=torch.float64)
    return (powers / powers.sum()).float()


def lag_weights(lag: int, length: int) -> torch.Tensor:
    """Weights that select the chunk at `lag`; 1 is the latest: float32 [length]."""
    weights = torch.zeros(length)
    weights[length - lag] = 1
    return weights


def last_sums(centred_BTD: torch.Tensor, weights_KT: torch.Tensor) -> torch.Tensor:
    """The sums at the last position: [B, K, D]. A longer context is cut, a shorter one counts as preceded by the mean."""
    seen = centred_BTD[:, -weights_KT.shape[1] :]
    return torch.einsum("kt,btd->bkd", weights_KT[:, weights_KT.shape[1] - seen.shape[1] :], seen)


def causal_sums(centred_BTD: torch.Tensor, weights_KT: torch.Tensor) -> torch.Tensor:
    """The sums at every position: [B, T, K, D]. Position t reads what `last_sums` reads of a context that ends there."""
    steps, reach = centred_BTD.shape[1], weights_KT.shape[1]
    back = torch.arange(steps, device=centred_BTD.device)[:, None] - torch.arange(steps, device=centred_BTD.device)
    seen = (back >= 0) & (back < reach)
    banded = weights_KT[:, (reach - 1 - back).clamp(0, reach - 1)] * seen
    return torch.einsum("kts,bsd->btkd", banded, centred_BTD)


def last_dimension_sums(centred_BTD: torch.Tensor, weights_TD: torch.Tensor) -> torch.Tensor:
    """The sum at the last position with weights of each dimension's own: [B, D]."""
    seen = centred_BTD[:, -len(weights_TD) :]
    return torch.einsum("td,btd->bd", weights_TD[len(weights_TD) - seen.shape[1] :], seen)


def causal_dimension_sums(centred_BTD: torch.Tensor, weights_TD: torch.Tensor) -> torch.Tensor:
    """The same at every position: [B, T, D]."""
    lags, dim = weights_TD.shape
    padded = F.pad(centred_BTD.mT, (lags - 1, 0))
    return F.conv1d(padded, weights_TD.mT[:, None].to(padded.dtype), groups=dim).mT
