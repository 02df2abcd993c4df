"""The broken original, kept so that reports can show it beside its repair. Not for use.

One linear layer on the trunk serves both as decoder vector and as retrieval vector; its output is forced to unit length. It is trained
on the squared error alone (`lvm train --preset legacy`). Trunk and input are those of the other models, so only its faults differ.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ModelConfig
from lvm.models.predictor import Prediction, Predictor


class LegacyPredictor(Predictor):
    """A trunk with one linear head of unit length: y_dec is y_cos."""

    def make_heads(self, config: ModelConfig) -> None:
        """Create the one head."""
        self.head = nn.Linear(config.width, config.dim)

    def heads(self, centred_BTD: torch.Tensor, states_BTH: torch.Tensor, last: bool) -> Prediction:
        """The same vector twice, [B, T, D]. Only the trunk reads the context."""
        unit = F.normalize(self.head(states_BTH).float(), dim=-1)
        return Prediction(unit, unit.clone())  # safetensors refuses golden predictions that share memory
