"""The predictors that a model has to beat, fitted on the same training documents.

Two of them are strong, one for each head: ridge regression for the cosine, the centred
exponentially weighted mean for retrieval. A model is compared with the best of all, per metric.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from lvm.atomic_io import replacing
from lvm.data.dataset import Dataset
from lvm.data.windows import Windows, contexts, make_windows, retrieval_ranks, unit
from lvm.errors import InputError

RIDGE_LAGS = 8


DECAYS = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


# Penalties as shares of the features' mean variance.
PENALTIES = (1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0, 10.0, 30.0)


FIT_WINDOWS = 5000


# The strongest baseline of retrieval: its decay is fitted to recall, on centred chunks.
CENTRED_EWMA = "centred_ewma_recall"


@dataclass(frozen=True)
class Baselines:
    """Fitted baselines for one context length; `predict` applies all of them."""

    context_length: int
    mean: torch.Tensor
    """[D]: mean of the training chunks."""

    ridge: torch.Tensor
    """[min(T, 8) * D, D]: coefficients on centred lags, the latest chunk first."""

    decays: dict[str, float]
    """Decay of each exponentially weighted mean, by its name."""

    penalty: float
    """Ridge penalty chosen on validation."""

    def predict(self, context_BTD: torch.Tensor) -> dict[str, torch.Tensor]:
        """One prediction [B, D] by each baseline, from contexts of at least `context_length` chunks."""
        x = context_BTD[:, -self.context_length :]
        mean = self.mean.to(x.device)
        centred = x - mean
        out = {
            "mean_vector": mean.expand(len(x), -1),
            "copy_last": x[:, -1],
            "context_mean": x.mean(1),
        }
        for name, decay in self.decays.items():
            out[name] = weighted_mean(centred if name.startswith("centred") else x, decay)
        lags = self.ridge.shape[0] // self.ridge.shape[1]
        out["ridge"] = mean + features(x[:, -lags:], mean) @ self.ridge.to(x.device)
        # Retrieval may prefer ridge without the mean that all its predictions share.
        out["centred_ridge"] = out["ridge"] - mean
        return out

    def save(self, path: Path) -> None:
        """Write as safetensors, durably."""
        # One JSON string: safetensors writes several entries in an order of its own.
        fitted = {"context_length": self.context_length, "penalty": self.penalty, "decays": self.decays}
        metadata = {"fitted": json.dumps(fitted, sort_keys=True)}
        with replacing(path) as temporary:
            save_file({"mean": self.mean.contiguous(), "ridge": self.ridge.contiguous()}, temporary, metadata)

    @classmethod
    def load(cls, path: Path) -> "Baselines":
        """Read what `save` wrote; `InputError` when the file is missing or not one of ours."""
        try:
            with safe_open(path, "pt") as file:
                return cls(mean=file.get_tensor("mean"), ridge=file.get_tensor("ridge"), **json.loads(file.metadata()["fitted"]))
        except Exception as error:  # safetensors raises its own kinds, a missing key another
            raise InputError(f"{path} is not a baselines file ({error}): train the model again") from error


def weighted_mean(x_BTD: torch.Tensor, decay: float) -> torch.Tensor:
    """Exponentially weighted mean over time, the last chunk weighing most: [B, D]."""
    weights = decay ** torch.arange(x_BTD.shape[1] - 1, -1, -1, device=x_BTD.device, dtype=x_BTD.dtype)
    return torch.einsum("btd,t->bd", x_BTD, weights / weights.sum())


def fit_baselines(dataset: Dataset, context_length: int, eval_windows: int, device: torch.device) -> Baselines:
    """Fit the baselines on train (ridge's penalty on val), or read them from beside the dataset."""
    cache = dataset.derived(f"baselines-{context_length}-{eval_windows}.safetensors")
    if cache.exists():
        return Baselines.load(cache)
    train = make_windows(dataset, "train", context_length, FIT_WINDOWS, device)
    val = make_windows(dataset, "val", context_length, eval_windows, device)
    mean = torch.from_numpy(dataset.vectors[dataset.rows("train")].mean(0, dtype=np.float64).astype(np.float32))
    decays = {}
    for metric, score in (("cosine", _score_cosine), ("recall", _score_recall)):
        for centred in ("", "centred_"):
            shift = mean if centred else torch.zeros_like(mean)
            decays[f"{centred}ewma_{metric}"] = max(DECAYS, key=lambda d: score(dataset, train, shift, d, device))
    ridge, penalty = _fit_ridge(dataset, val, mean, min(context_length, RIDGE_LAGS), device)
    fitted = Baselines(context_length, mean, ridge, decays, penalty)
    fitted.save(cache)
    return fitted


def _predictions(dataset: Dataset, windows: Windows, predict: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> torch.Tensor:
    parts = contexts(dataset.vectors, windows.targets, windows.context_length, device)
    return torch.cat([predict(part) for part in parts])


def _score_cosine(dataset: Dataset, windows: Windows, shift: torch.Tensor, decay: float, device: torch.device) -> float:
    predicted = _predictions(dataset, windows, lambda x: weighted_mean(x - shift.to(device), decay), device)
    return float(F.cosine_similarity(predicted, unit(dataset.vectors[windows.targets], device)).mean())


def _score_recall(dataset: Dataset, windows: Windows, shift: torch.Tensor, decay: float, device: torch.device) -> float:
    predicted = _predictions(dataset, windows, lambda x: weighted_mean(x - shift.to(device), decay), device)
    pool = unit(dataset.vectors[windows.pool], device)
    ranks = retrieval_ranks(predicted, pool, windows.answer, windows.excluded)
    return float((ranks <= 5).mean())


def _fit_ridge(dataset: Dataset, val: Windows, mean: torch.Tensor, lags: int, device: torch.device) -> tuple[torch.Tensor, float]:
    """Least squares with a penalty on centred lags, over every training chunk that has them all.

    The Gram matrix is summed in float64 over blocks, so memory does not grow with the corpus.
    """
    rows = dataset.rows("train")
    rows = rows[rows - dataset.starts[dataset.row_doc[rows]] >= lags]
    size, dim = lags * dataset.dim, dataset.dim
    precise = torch.float64 if device.type != "mps" else torch.float32
    gram = torch.zeros(size, size, dtype=precise, device=device)
    cross = torch.zeros(size, dim, dtype=precise, device=device)
    shift = mean.to(device)
    for start in range(0, len(rows), 4096):
        block = rows[start : start + 4096]
        x = torch.cat([features(part, shift) for part in contexts(dataset.vectors, block, lags, device)])
        y = torch.from_numpy(dataset.vectors[block]).to(device) - shift
        gram += (x.T @ x).to(precise)
        cross += (x.T @ y).to(precise)
    scale = gram.diagonal().mean()
    target = unit(dataset.vectors[val.targets], device)
    best = (-2.0, torch.empty(0), 0.0)
    for penalty in PENALTIES:
        penalised = gram.clone()
        penalised.diagonal().add_(penalty * scale)
        weights = torch.cholesky_solve(cross, torch.linalg.cholesky(penalised)).float()
        predicted = _predictions(dataset, val, lambda x, w=weights: shift + features(x[:, -lags:], shift) @ w, device)  # type: ignore[misc]
        score = float(F.cosine_similarity(predicted, target).mean())
        best = max(best, (score, weights.cpu(), penalty), key=lambda item: item[0])
    return best[1], best[2]


def features(context_BTD: torch.Tensor, mean_D: torch.Tensor) -> torch.Tensor:
    """Centred lags side by side, the latest chunk first: [B, T * D]."""
    return (context_BTD - mean_D).flip(1).flatten(1)
