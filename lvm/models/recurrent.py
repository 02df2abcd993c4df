"""LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014) trunks; cuDNN's kernels on a GPU."""

import torch
from torch import nn

from lvm.config import ARCHITECTURES, ModelConfig


@ARCHITECTURES.register("lstm")
class LSTMTrunk(nn.Module):
    """A stack of LSTM layers; causal by nature."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.rnn = nn.LSTM(config.dim, config.width, config.layers, batch_first=True, dropout=between)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """[B, T, dim] to [B, T, width]."""
        out: torch.Tensor = self.rnn(x_BTD)[0]
        return out


@ARCHITECTURES.register("gru")
class GRUTrunk(nn.Module):
    """A stack of GRU layers; causal by nature."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.rnn = nn.GRU(config.dim, config.width, config.layers, batch_first=True, dropout=between)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """[B, T, dim] to [B, T, width]."""
        out: torch.Tensor = self.rnn(x_BTD)[0]
        return out
