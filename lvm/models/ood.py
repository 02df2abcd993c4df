"""Is a vector of the kind that a model was trained on? Its distance from the training embeddings, in their own units.

A predictor answers any vector, also that of another language or another encoder. The Mahalanobis
distance to the training embeddings (Lee et al. 2018, arXiv 1807.03888, with one class) tells such vectors from
those that the model knows; what is far is decided by documents that it was not trained on.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from lvm.atomic_io import replacing
from lvm.data.dataset import Dataset

FAMILIAR = 0.999
"""Share of the validation chunks that count as familiar."""


SHRINKAGE = 1.0
"""Times the mean variance that is added to each direction's, so that those without any do not decide alone; see bench/serving/LOG.md."""


BLOCK = 8_192


@dataclass(frozen=True)
class OutOfDistribution:
    """The distribution of the training embeddings, and how far from it a familiar vector may lie."""

    mean: torch.Tensor
    """[D]"""

    whitener: torch.Tensor
    """[D, D]: `(x - mean) @ whitener` has the length of x's Mahalanobis distance, by the covariance that `SHRINKAGE` was added to."""

    limit: float
    """Distance that one validation chunk in a thousand exceeds."""

    norms: tuple[float, float]
    """Least and greatest Euclidean norm among the training vectors."""

    def distances(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distance over the square root of D. [..., D] to [...]."""
        whitened = F.linear(x_BTD, self.whitener.T, -self.mean @ self.whitener)
        return torch.linalg.vector_norm(whitened, dim=-1) / len(self.mean) ** 0.5

    def to(self, device: torch.device) -> "OutOfDistribution":
        """The same on another device."""
        return OutOfDistribution(self.mean.to(device), self.whitener.to(device), self.limit, self.norms)

    def save(self, path: Path) -> None:
        """Write to a safetensors file."""
        numbers = {"limit": self.limit, "norms": self.norms}
        with replacing(path) as temporary:
            save_file(
                {"mean": self.mean.contiguous(), "whitener": self.whitener.contiguous()}, temporary, {"familiarity": json.dumps(numbers)}
            )

    @classmethod
    def load(cls, path: Path) -> "OutOfDistribution":
        """Read what `save` wrote."""
        with safe_open(path, "pt") as file:
            numbers = json.loads(file.metadata()["familiarity"])
            return cls(file.get_tensor("mean"), file.get_tensor("whitener"), numbers["limit"], tuple(numbers["norms"]))


def fit_out_of_distribution(dataset: Dataset) -> OutOfDistribution:
    """Fit to the training chunks; the limit to the validation chunks. Summed in float64, on the CPU."""
    rows, dim = dataset.rows("train"), dataset.dim
    total, products = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64)
    least, greatest = np.inf, 0.0
    for start in range(0, len(rows), BLOCK):
        block = torch.from_numpy(dataset.vectors[rows[start : start + BLOCK]]).double()
        norms = block.norm(dim=1)
        least, greatest = min(least, float(norms.min())), max(greatest, float(norms.max()))
        total += block.sum(0)
        products += block.T @ block
    mean = total / len(rows)
    covariance = products / len(rows) - torch.outer(mean, mean)
    covariance += SHRINKAGE * covariance.diagonal().mean() * torch.eye(dim, dtype=torch.float64)
    whitener = torch.linalg.cholesky(torch.linalg.inv(covariance)).float()
    fitted = OutOfDistribution(mean.float(), whitener, np.inf, (least, greatest))
    unseen = dataset.rows("val")
    found = [fitted.distances(torch.from_numpy(dataset.vectors[unseen[at : at + BLOCK]])) for at in range(0, len(unseen), BLOCK)]
    return OutOfDistribution(fitted.mean, fitted.whitener, float(np.quantile(torch.cat(found).numpy(), FAMILIAR)), fitted.norms)
