"""The predictors. A new architecture is one file here and one line in `TRUNKS`."""

from collections.abc import Callable

import torch
from torch import nn

from lvm.config import ModelConfig
from lvm.models.amn import AMNTrunk
from lvm.models.ensemble import Ensemble
from lvm.models.legacy import LegacyPredictor
from lvm.models.mamba2 import Mamba2Trunk
from lvm.models.predictor import Prediction, Predictor
from lvm.models.recurrent import GRUTrunk, LSTMTrunk
from lvm.models.transformer import TransformerTrunk

TRUNKS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "lstm": LSTMTrunk,
    "gru": GRUTrunk,
    "mamba2": Mamba2Trunk,
    "transformer": TransformerTrunk,
    "amn": AMNTrunk,
}

__all__ = ["TRUNKS", "Ensemble", "Prediction", "Predictor", "build_predictor"]


def build_predictor(config: ModelConfig, mean: torch.Tensor, std: torch.Tensor) -> Predictor:
    """A fresh predictor of the declared architecture.

    `mean`, `std`: [D], the encoder's per-dimension moments on the training chunks; they become
    buffers of the model, so that a checkpoint carries its own normalisation.
    """
    kind = LegacyPredictor if config.heads == "legacy" else Predictor

    def member() -> Predictor:
        return kind(config, TRUNKS[config.arch](config), mean, std)

    return Ensemble(config, member, mean, std) if config.members > 1 else member()
