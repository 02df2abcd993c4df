"""The predictors that a model has to beat. They have no network and are fitted on the same training documents.

A baseline is one registered function of the contexts, with a second one that fits it where it has something to fit::

    def fit(data: FittingData) -> Parameters: ...

    @BASELINES.register("my_baseline", fit=fit)
    def my_baseline(context_BTD, mean_D, parameters) -> torch.Tensor: ...

Of the present ones ridge regression is the strongest in cosine, and the centred exponentially weighted mean in retrieval. A model is
compared with the best of all, metric by metric.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from lvm.atomic_io import digest_json, replacing
from lvm.config import BASELINES
from lvm.data.dataset import Dataset
from lvm.data.derived import derived_file
from lvm.data.statistics import training_mean
from lvm.data.windows import Windows, contexts, make_windows, retrieval_ranks, unit
from lvm.errors import InputError

RIDGE_LAGS = 8
"""Most lags that ridge regression reads."""

DECAYS = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Decays that the exponentially weighted means choose from."""

PENALTIES = (1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Penalties that ridge regression chooses from, as shares of the features' mean variance."""

FIT_WINDOWS = 5000
"""Training windows on which decays are compared."""

RIDGE_BLOCK = 4096
"""Rows whose features are in memory at once while ridge regression is fitted."""

CENTRED_EWMA = "centred_ewma_recall"
"""The strongest baseline in retrieval: its decay is fitted to recall, on centred chunks."""

Parameters = dict[str, torch.Tensor]
"""What was fitted for one baseline, by name: CPU tensors, numbers as float64 scalars."""


@dataclass(frozen=True)
class FittingData:
    """What a baseline is fitted on: it learns from the training split and chooses on training or validation windows."""

    dataset: Dataset
    context_length: int
    mean: torch.Tensor
    """[D]: mean of the training chunks, on `device`."""

    train: Windows
    val: Windows
    device: torch.device

    def predictions(self, windows: Windows, predict: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """`predict` applied to the context of every window: [N, D]."""
        parts = contexts(self.dataset.vectors, windows.targets, windows.context_length, self.device)
        return torch.cat([predict(part) for part in parts])


@dataclass(frozen=True)
class Baselines:
    """All baselines, fitted for one context length."""

    context_length: int
    mean: torch.Tensor
    """[D]: mean of the training chunks."""

    names: tuple[str, ...]
    """Which baselines there are; each is registered in `BASELINES`."""

    parameters: dict[str, Parameters]
    """What was fitted, by baseline."""

    def predict(self, context_BTD: torch.Tensor) -> dict[str, torch.Tensor]:
        """One prediction [B, D] by each baseline, from contexts of at least `context_length` chunks.

        Raises `InputError` when a baseline is not registered in this process.
        """
        x, mean = context_BTD[:, -self.context_length :], self.mean.to(context_BTD.device)
        return {name: BASELINES[name](x, mean, self.parameters.get(_fitted_as(name), {})) for name in self.names}

    def choices(self) -> dict[str, float]:
        """Every fitted number, as 'baseline.parameter': decays and penalties."""
        fitted = {f"{name}.{key}": value for name, values in self.parameters.items() for key, value in values.items()}
        return {name: float(value) for name, value in fitted.items() if not value.ndim}

    def save(self, path: Path) -> None:
        """Write as safetensors, durably. The mean is not written: it is part of the model."""
        # One entry alone: safetensors writes several in an order of its own.
        metadata = {"fitted": json.dumps({"context_length": self.context_length, "names": self.names}, sort_keys=True)}
        tensors = {f"{name}.{key}": value.contiguous() for name, values in self.parameters.items() for key, value in values.items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, path: Path, mean: torch.Tensor) -> "Baselines":
        """Read what `save` wrote; `mean` [D] is that of the training chunks. Raises `InputError` when the file is missing or damaged."""
        try:
            with safe_open(path, "pt") as file:
                fitted = json.loads(file.metadata()["fitted"])
                parameters: dict[str, Parameters] = {}
                for key in file.keys():  # noqa: SIM118, the file is no dictionary
                    name, _, parameter = key.rpartition(".")
                    parameters.setdefault(name, {})[parameter] = file.get_tensor(key)
                return cls(fitted["context_length"], mean.cpu(), tuple(fitted["names"]), parameters)
        except Exception as error:  # safetensors has exceptions of its own, and a missing key is another
            raise InputError(f"{path} is not a baselines file ({error}): train the model again") from error


def fit_baselines(dataset: Dataset, context_length: int, eval_windows: int, device: torch.device) -> Baselines:
    """Fit every registered baseline, or read what was fitted before from beside the dataset.

    `eval_windows` is the size of the validation pool, on whose windows choices may be made.
    """
    names = tuple(BASELINES)
    file = dataset.derived(f"baselines-{context_length}-{eval_windows}-{digest_json(names)[:8]}.safetensors")

    def fit(path: Path) -> None:
        _fit(dataset, context_length, eval_windows, names, device).save(path)

    return Baselines.load(derived_file(file, fit), training_mean(dataset))


def _fit(dataset: Dataset, context_length: int, eval_windows: int, names: tuple[str, ...], device: torch.device) -> Baselines:
    """Fit the baselines of these names."""
    mean = training_mean(dataset)
    train = make_windows(dataset, "train", context_length, FIT_WINDOWS, device)
    val = make_windows(dataset, "val", context_length, eval_windows, device)
    data = FittingData(dataset, context_length, mean.to(device), train, val, device)
    fits = {name: BASELINES.about(name).get("fit") for name in names}
    return Baselines(context_length, mean, names, {name: fit(data) for name, fit in fits.items() if fit})


def _fitted_as(name: str) -> str:
    """The baseline whose parameters baseline `name` uses: its own, unless it was registered with `parameters_of`."""
    return str(BASELINES.about(name).get("parameters_of", name))


# Without anything to fit


@BASELINES.register("mean_vector")
def mean_vector(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The mean of the training chunks."""
    return mean_D.expand(len(context_BTD), -1)


@BASELINES.register("copy_last")
def copy_last(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The last chunk of the context."""
    return context_BTD[:, -1]


@BASELINES.register("context_mean")
def context_mean(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """The mean of the context."""
    return context_BTD.mean(1)


# Exponentially weighted means


def weighted_mean(x_BTD: torch.Tensor, decay: float) -> torch.Tensor:
    """Exponentially weighted mean over time; the last chunk weighs most: [B, D]."""
    weights = decay ** torch.arange(x_BTD.shape[1] - 1, -1, -1, device=x_BTD.device, dtype=x_BTD.dtype)
    return torch.einsum("btd,t->bd", x_BTD, weights / weights.sum())


def mean_cosine(data: FittingData, windows: Windows, predicted_ND: torch.Tensor) -> float:
    """Mean cosine of predictions and targets."""
    return float(F.cosine_similarity(predicted_ND, unit(data.dataset.vectors[windows.targets], data.device)).mean())


def recall_at_5(data: FittingData, windows: Windows, predicted_ND: torch.Tensor) -> float:
    """Share of the windows whose target is among the five nearest chunks of the pool."""
    pool = unit(data.dataset.vectors[windows.pool], data.device)
    return float((retrieval_ranks(predicted_ND, pool, windows.answer, windows.excluded) <= 5).mean())


def fit_decay(data: FittingData, score: Callable[[FittingData, Windows, torch.Tensor], float], centred: bool) -> Parameters:
    """The decay with the best score on training windows."""
    shift = data.mean if centred else torch.zeros_like(data.mean)
    scores = {d: score(data, data.train, data.predictions(data.train, lambda x, d=d: weighted_mean(x - shift, d))) for d in DECAYS}  # type: ignore[misc]
    return {"decay": torch.tensor(max(scores, key=scores.__getitem__), dtype=torch.float64)}


def ewma(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Exponentially weighted mean (EWMA) of the context."""
    return weighted_mean(context_BTD, float(parameters["decay"]))


def centred_ewma(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Exponentially weighted mean of the context without the training mean, which all chunks share."""
    return weighted_mean(context_BTD - mean_D, float(parameters["decay"]))


# One function under two names: the decay is chosen for one metric or for the other.
BASELINES.register("ewma_cosine", fit=partial(fit_decay, score=mean_cosine, centred=False))(ewma)
BASELINES.register("centred_ewma_cosine", fit=partial(fit_decay, score=mean_cosine, centred=True))(centred_ewma)
BASELINES.register("ewma_recall", fit=partial(fit_decay, score=recall_at_5, centred=False))(ewma)
BASELINES.register(CENTRED_EWMA, fit=partial(fit_decay, score=recall_at_5, centred=True))(centred_ewma)


# Ridge regression


def features(context_BTD: torch.Tensor, mean_D: torch.Tensor) -> torch.Tensor:
    """Centred lags side by side, the latest chunk first: [B, T * D]."""
    return (context_BTD - mean_D).flip(1).flatten(1)


def fit_ridge(data: FittingData) -> Parameters:
    """Least squares on centred lags with the penalty that is best on validation.

    `coefficients`: [min(T, RIDGE_LAGS) * D, D], the latest chunk's first; `penalty` is in units of the features' mean variance.
    """
    gram, cross = _normal_equations(data, min(data.context_length, RIDGE_LAGS))
    scale = gram.diagonal().mean()
    best, best_score = Parameters(), -2.0
    for penalty in PENALTIES:
        penalised = gram.clone()
        penalised.diagonal().add_(penalty * scale)
        found = {"coefficients": torch.cholesky_solve(cross, torch.linalg.cholesky(penalised)).float()}
        score = mean_cosine(data, data.val, data.predictions(data.val, lambda x, found=found: ridge(x, data.mean, found)))  # type: ignore[misc]
        if score > best_score:
            best, best_score = {name: value.cpu() for name, value in found.items()}, score
            best["penalty"] = torch.tensor(penalty, dtype=torch.float64)
    return best


def _normal_equations(data: FittingData, lags: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram matrix [lags * D, lags * D] of the features and their products with the targets [lags * D, D].

    Over every training chunk that has all its lags, summed in float64 block by block, so that memory does not grow with the corpus.
    """
    dataset, device = data.dataset, data.device
    rows = dataset.rows("train")
    rows = rows[rows - dataset.starts[dataset.row_doc[rows]] >= lags]
    size, dim = lags * dataset.dim, dataset.dim
    precise = torch.float64 if device.type != "mps" else torch.float32
    gram = torch.zeros(size, size, dtype=precise, device=device)
    cross = torch.zeros(size, dim, dtype=precise, device=device)
    for start in range(0, len(rows), RIDGE_BLOCK):
        block = rows[start : start + RIDGE_BLOCK]
        x = torch.cat([features(part, data.mean) for part in contexts(dataset.vectors, block, lags, device)])
        y = torch.from_numpy(dataset.vectors[block]).to(device) - data.mean
        gram += (x.T @ x).to(precise)
        cross += (x.T @ y).to(precise)
    return gram, cross


@BASELINES.register("ridge", fit=fit_ridge)
def ridge(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Ridge regression on the last chunks."""
    coefficients = parameters["coefficients"].to(context_BTD.device)
    lags = coefficients.shape[0] // coefficients.shape[1]
    return mean_D + features(context_BTD[:, -lags:], mean_D) @ coefficients


@BASELINES.register("centred_ridge", parameters_of="ridge")
def centred_ridge(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Ridge regression without the mean that all its predictions share: retrieval may prefer it."""
    return ridge(context_BTD, mean_D, parameters) - mean_D
