"""The predictors. A new architecture is one file with a registered trunk; see docs/extending.md."""

import torch

from lvm.config import ARCHITECTURES, ModelConfig
from lvm.models.baselines import Baselines
from lvm.models.closed_forms import ClosedForms
from lvm.models.ensemble import Ensemble
from lvm.models.legacy import LegacyPredictor
from lvm.models.predictor import Prediction, Predictor

# Trunks register themselves when they are imported, in the order in which reports and figures list them.
# isort: off
from lvm.models import recurrent, mamba2, transformer, amn

# isort: on

__all__ = ["Ensemble", "Prediction", "Predictor", "amn", "build_predictor", "mamba2", "recurrent", "transformer"]


def build_predictor(config: ModelConfig, mean: torch.Tensor, std: torch.Tensor, baselines: Baselines | None = None) -> Predictor:
    """A fresh predictor of the declared architecture.

    `mean`, `std`: [D], the encoder's per-dimension moments on the training chunks. They become
    buffers of the model, so that a checkpoint carries its own normalisation. `baselines` hold the closed forms that the heads start from;
    with None, and where `config.heads` says so, they start from lag weights alone.
    """
    kind = LegacyPredictor if config.heads == "legacy" else Predictor
    start = ClosedForms(baselines) if baselines is not None and config.heads == "closed_forms" else None

    def member() -> Predictor:
        return kind(config, ARCHITECTURES[config.arch](config), mean, std, start)

    return Ensemble(config, member, mean, std) if config.members > 1 else member()
