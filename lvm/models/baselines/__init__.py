"""The predictors that a model has to beat. They have no network and are fitted on the same training documents.

A baseline is one registered function of the contexts, with a second one that fits it where it has something to fit::

    def fit(data: FittingData) -> Parameters: ...

    @BASELINES.register("my_baseline", fit=fit)
    def my_baseline(context_BTD, mean_D, parameters) -> torch.Tensor: ...

They learn from the training documents, and choose decays, penalties and weights on validation windows, as models do. A model is compared
with the best of all, metric by metric. docs/rivals.md says what else was tried.
"""

from pathlib import Path

import torch

from lvm.atomic_io import digest_json
from lvm.config import BASELINES
from lvm.data.dataset import Dataset
from lvm.data.derived import derived_file
from lvm.data.statistics import training_mean
from lvm.models.baselines.fitted import Baselines, Parameters
from lvm.models.baselines.fitting import FittingData, fitting_data

# Baselines register themselves when they are imported, in the order in which they are fitted and in which reports list them.
# isort: off
from lvm.models.baselines import means, ridge, neighbours, whitening

# isort: on

__all__ = [
    "CENTRED_EWMA",
    "STRONGEST",
    "Baselines",
    "FittingData",
    "Parameters",
    "fit_baselines",
    "means",
    "neighbours",
    "ridge",
    "whitening",
]

STRONGEST = {"cosine": "ridge_knn", "recall_at_5": "whitened_ridge"}
"""The strongest baseline of each head, by the head's metric, where one has to be named before anything is measured."""

CENTRED_EWMA = "centred_ewma"
"""The plain baseline of retrieval, against which figures and ablations show what a context gives without any fitting but a decay."""


def fit_baselines(dataset: Dataset, context_length: int, eval_windows: int, device: torch.device) -> Baselines:
    """Fit every registered baseline, or read what was fitted before from beside the dataset.

    `eval_windows` is the size of the validation pool, on whose windows choices are made. Raises `InputError` when no training or no
    validation document is long enough.
    """
    names = tuple(BASELINES)
    file = dataset.derived(f"baselines-{context_length}-{eval_windows}-{digest_json(names)[:8]}.safetensors")

    def fit(path: Path) -> None:
        _fit(dataset, context_length, eval_windows, names, device).save(path)

    return Baselines.load(derived_file(file, fit), training_mean(dataset))


def _fit(dataset: Dataset, context_length: int, eval_windows: int, names: tuple[str, ...], device: torch.device) -> Baselines:
    """Fit the baselines of these names, in order: one may use what an earlier one fitted."""
    data = fitting_data(dataset, context_length, eval_windows, device)
    for name in names:
        if fit := BASELINES.about(name).get("fit"):
            data.fitted[name] = {key: value.cpu() for key, value in fit(data).items()}
    return Baselines(context_length, training_mean(dataset), names, data.fitted)
