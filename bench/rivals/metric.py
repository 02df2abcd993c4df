"""What turns a prediction into a retrieval query: covariances to a power, and corrections for chunks that are near to everything."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from bench.rivals.linear import Predict
from bench.rivals.problem import BLOCK, Problem


def covariance(p: Problem, of: str, prediction: Predict | None = None) -> torch.Tensor:
    """A covariance [D, D] of the training chunks, float64.

    'total'; 'within' documents; 'residual' of a prediction; 'step' from the EWMA .7 of a context to its target.
    """
    if of == "total":
        return torch.diag(p.variances.double())
    target = p.centred[torch.as_tensor(p.rows("train"), device=p.device)]
    if of == "within":
        rows = torch.as_tensor(p.dataset.rows("train"), device=p.device)
        docs = torch.as_tensor(p.dataset.row_doc, device=p.device)[rows]
        sums = torch.zeros(len(p.dataset.doc_ids), len(p.mean), device=p.device).index_add_(0, docs, p.centred[rows])
        counts = torch.bincount(docs, minlength=len(sums)).clamp_min(1)
        left = p.centred[rows] - (sums / counts[:, None])[docs]
    elif of == "residual":
        assert prediction is not None
        left = target - prediction("train")
    else:
        left = target - p.ewma("train", 0.7)
    total = torch.zeros(len(p.mean), len(p.mean), dtype=torch.float64, device=p.device)
    for part in left.split(4 * BLOCK):
        total += (part.T @ part).double()
    return total / len(left)


def whitening(p: Problem, of: str, power: float, prediction: Predict | None = None) -> torch.Tensor:
    """The covariance to the minus `power`, [D, D]; eigenvalues below a millionth of the largest count as that."""
    values, axes = p.keep(("eigen", of), lambda: torch.linalg.eigh(covariance(p, of, prediction)))
    return ((axes * values.clamp_min(1e-6 * values[-1]) ** -power) @ axes.T).float()


def regularised_inverse(p: Problem, of: str, share: float) -> torch.Tensor:
    """(covariance + share * mean variance)^-1, [D, D]: the closed form of the spectral contrastive loss (HaoChen et al. 2021)."""
    found = covariance(p, of)
    found.diagonal().add_(share * found.diagonal().mean())
    return torch.linalg.inv(found).float()


@dataclass(frozen=True)
class Hubness:
    """How near a chunk is to training queries: the mean cosine to its `k` nearest ones (CSLS: Conneau et al. 2018, eq. 6)."""

    bank_BD: torch.Tensor
    """Unit queries of training contexts."""

    k: int

    def of(self, chunks_PD: torch.Tensor) -> torch.Tensor:
        """[P], for unit chunks."""
        parts = [(part @ self.bank_BD.T).topk(self.k, 1).values.mean(1) for part in chunks_PD.split(BLOCK)]
        return torch.cat(parts)

    def direction(self, chunks_PD: torch.Tensor) -> torch.Tensor:
        """The vector [D] whose products with unit chunks come nearest to their hubness, up to a constant, by least squares.

        Taken from a query it corrects for hubness as far as one vector can.
        """
        with_one = torch.cat([chunks_PD, torch.ones_like(chunks_PD[:, :1])], 1)
        gram = (with_one.T @ with_one).double()
        gram.diagonal()[:-1].add_(1e-3 * gram.diagonal()[:-1].mean())
        return torch.linalg.solve(gram, (with_one.T @ self.of(chunks_PD)[:, None]).double())[:-1, 0].float()


def bank(p: Problem, query: Callable[[str], torch.Tensor], size: int) -> torch.Tensor:
    """Unit queries of a fixed sample of the indexed training contexts, [size, D]."""
    found = query("train")
    chosen = np.random.default_rng(0).choice(len(found), min(size, len(found)), replace=False)
    return F.normalize(found[torch.as_tensor(chosen, device=p.device)], dim=1)


def training_chunks(p: Problem, size: int) -> torch.Tensor:
    """A fixed sample of training chunks, of unit length, [size, D]."""
    rows = p.dataset.rows("train")
    chosen = np.random.default_rng(1).choice(rows, min(size, len(rows)), replace=False)
    return F.normalize(p.centred[torch.as_tensor(chosen, device=p.device)] + p.mean, dim=1)
