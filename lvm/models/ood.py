"""Out-of-distribution detection: does a vector resemble the embeddings that a model was trained on?

A predictor returns a prediction for any vector, also for one of another language or another encoder. The Mahalanobis distance to the
training embeddings (Lee et al. 2018, arXiv 1807.03888, with one class) tells such vectors apart. The limit is set on validation chunks,
which the model was not trained on.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from lvm.atomic_io import replacing
from lvm.data.dataset import Dataset
from lvm.data.statistics import training_covariance, training_moments

IN_DISTRIBUTION_SHARE = 0.999
"""Share of the validation chunks that are within the limit."""

SHRINKAGE = 1.0
"""The covariance's mean variance is added to every direction's this many times. Otherwise the directions in which the training vectors
hardly vary would decide alone; see bench/serving/LOG.md."""

BLOCK_ROWS = 8_192


@dataclass(frozen=True)
class OutOfDistribution:
    """The distribution of the training embeddings, and the distance from it at which a vector counts as out of it."""

    mean: torch.Tensor
    """[D]: mean of the training chunks."""

    whitener: torch.Tensor
    """[D, D]: the length of `(x - mean) @ whitener` is x's Mahalanobis distance under the shrunk covariance."""

    limit: float
    """Greatest distance that is in distribution: one validation chunk in a thousand exceeds it."""

    norms: tuple[float, float]
    """Least and greatest Euclidean norm among the training vectors."""

    def distances(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distance divided by the square root of D: [..., D] to [...]."""
        whitened = F.linear(x_BTD, self.whitener.T, -self.mean @ self.whitener)
        return torch.linalg.vector_norm(whitened, dim=-1) / len(self.mean) ** 0.5

    def to(self, device: torch.device) -> "OutOfDistribution":
        """A copy on `device`."""
        return replace(self, mean=self.mean.to(device), whitener=self.whitener.to(device))

    def save(self, path: Path) -> None:
        """Write as safetensors, durably. The mean is not written: it is part of the model."""
        numbers = {"limit": self.limit, "norms": self.norms}
        with replacing(path) as temporary:
            save_file({"whitener": self.whitener.contiguous()}, temporary, {"fitted": json.dumps(numbers)})

    @classmethod
    def load(cls, path: Path, mean: torch.Tensor) -> "OutOfDistribution":
        """Read what `save` wrote; `mean` [D] is that of the training chunks."""
        with safe_open(path, "pt") as file:
            numbers = json.loads(file.metadata()["fitted"])
            return cls(mean.cpu(), file.get_tensor("whitener"), numbers["limit"], tuple(numbers["norms"]))


def fit_out_of_distribution(dataset: Dataset) -> OutOfDistribution:
    """Fit the distribution to the training chunks and the limit to the validation chunks, on the CPU."""
    mean, covariance = training_moments(dataset).mean, training_covariance(dataset)
    dim = dataset.dim
    covariance += SHRINKAGE * covariance.diagonal().mean() * torch.eye(dim, dtype=torch.float64)
    whitener = torch.linalg.cholesky(torch.linalg.inv(covariance)).float()
    fitted = OutOfDistribution(mean.float(), whitener, np.inf, _norms(dataset))
    unseen = dataset.rows("val")
    blocks = (unseen[start : start + BLOCK_ROWS] for start in range(0, len(unseen), BLOCK_ROWS))
    distances = torch.cat([fitted.distances(torch.from_numpy(dataset.vectors[block])) for block in blocks])
    return replace(fitted, limit=float(np.quantile(distances.numpy(), IN_DISTRIBUTION_SHARE)))


def _norms(dataset: Dataset) -> tuple[float, float]:
    """Least and greatest norm of the training vectors."""
    rows, least, greatest = dataset.rows("train"), np.inf, 0.0
    for start in range(0, len(rows), BLOCK_ROWS):
        norms = np.linalg.norm(dataset.vectors[rows[start : start + BLOCK_ROWS]].astype(np.float64), axis=1)
        least, greatest = min(least, float(norms.min())), max(greatest, float(norms.max()))
    return least, greatest
