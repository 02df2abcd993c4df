"""The closed forms that a predictor starts from: ridge regression and neighbours for y_dec, the whitened query for y_cos.

They are the fitted baselines themselves, at every position of a context. Nothing in them is trained, and nothing is stored with the model:
a checkpoint's baselines hold them.
"""

import torch
from torch import nn

from lvm.models.baselines import Baselines
from lvm.models.baselines.neighbours import successors
from lvm.models.weighted_sums import causal_dimension_sums, causal_sums, last_dimension_sums, last_sums


class ClosedForms(nn.Module):
    """Ridge regression, the nearest training contexts' successors, and the query of the whitened ridge baseline, as buffers."""

    ridge_weights: torch.Tensor
    """[K, T]: the features of ridge regression."""

    coefficients: torch.Tensor
    """[K * D, D]"""

    axes: torch.Tensor
    """[D, D]: the axes with lag weights of their own."""

    axis_weights: torch.Tensor
    """[T, D]"""

    query_weights: torch.Tensor
    """[1, T]: the mean in the query."""

    key_weights: torch.Tensor
    """[1, T]: the mean by which neighbours are found."""

    keys: torch.Tensor
    """[N, D]"""

    values: torch.Tensor
    """[N, D]: the successors."""

    ridge_weight: torch.Tensor
    """Weight of ridge regression in the query."""

    successor_weight: torch.Tensor
    """Weight of the successors that the baseline chose."""

    whitener: torch.Tensor
    """[D, D]"""

    hub: torch.Tensor
    """[D]: what is taken from the whitened query of unit length, away from hubs."""

    def __init__(self, baselines: Baselines) -> None:
        super().__init__()
        ridge, knn, query = (baselines.parameters[name] for name in ("ridge", "ridge_knn", "whitened_ridge"))
        self.temperature = knn["temperature"]
        tensors = {
            "ridge_weights": ridge["weights"],
            "coefficients": ridge["coefficients"],
            "axes": ridge["axes"],
            "axis_weights": ridge["axis_weights"],
            "query_weights": baselines.parameters["whitened_ewma"]["weights"][None],
            "key_weights": knn["weights"][None],
            "keys": knn["keys"].float(),  # once, not at every search
            "values": knn["successors"],
            "ridge_weight": query["ridge_weight"].float(),
            "successor_weight": knn["weight"].float(),
            "whitener": query["matrix"],
            "hub": query["hub"],
        }
        for name, value in tensors.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, centred_BTD: torch.Tensor, last: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Ridge regression's centred prediction and the query before whitening: [B, T, D] each, or [B, 1, D] of the `last` position."""
        turned = centred_BTD @ self.axes
        along = last_dimension_sums(turned, self.axis_weights)[:, None] if last else causal_dimension_sums(turned, self.axis_weights)
        regression = (along + self._sums(turned, self.ridge_weights, last).flatten(2) @ self.coefficients) @ self.axes.T
        query = self._sums(centred_BTD, self.query_weights, last)[:, :, 0]
        return regression, query + self.ridge_weight * regression

    def successors(self, centred_BTD: torch.Tensor, last: bool) -> torch.Tensor:
        """Mean centred successor of the nearest training contexts: [B, T, D], or [B, 1, D]."""
        query = self._sums(centred_BTD, self.key_weights, last)[:, :, 0]
        index = {"keys": self.keys, "successors": self.values, "temperature": self.temperature}
        return successors(query.flatten(0, 1), index).view_as(query)

    @staticmethod
    def _sums(centred_BTD: torch.Tensor, weights_KT: torch.Tensor, last: bool) -> torch.Tensor:
        """[B, T, K, D], or [B, 1, K, D]."""
        return last_sums(centred_BTD, weights_KT)[:, None] if last else causal_sums(centred_BTD, weights_KT)
