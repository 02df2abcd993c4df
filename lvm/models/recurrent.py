"""Recurrent trunks: LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014). On a GPU cuDNN computes them."""

from typing import ClassVar

import torch
from torch import nn

from lvm.config import ARCHITECTURES, ModelConfig


class RecurrentTrunk(nn.Module):
    """A stack of recurrent layers with dropout between them. Recurrence reads no later chunk, so it is causal."""

    layer: ClassVar[type[nn.LSTM] | type[nn.GRU]]
    """PyTorch's module for the stack."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0  # a single layer has no place for it
        self.rnn = self.layer(config.dim, config.width, config.layers, batch_first=True, dropout=between)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """[B, T, dim] to [B, T, width]."""
        out: torch.Tensor = self.rnn(x_BTD)[0]
        return out


@ARCHITECTURES.register("lstm")
class LSTMTrunk(RecurrentTrunk):
    """LSTM layers."""

    layer = nn.LSTM


@ARCHITECTURES.register("gru")
class GRUTrunk(RecurrentTrunk):
    """GRU layers."""

    layer = nn.GRU
