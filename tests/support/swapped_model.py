"""A model class that fits another one's weights."""

import torch

from lvm.models.recurrent import LSTMTrunk


class Backwards(LSTMTrunk):
    """The same state-dict keys and shapes, another forward pass."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return super().forward(x_BTD.flip(1))
