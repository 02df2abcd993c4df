"""Transformer trunk: pre-norm decoder blocks (Vaswani et al. 2017; Xiong et al. 2020)."""

import torch
from torch import nn

from lvm.config import ARCHITECTURES, ModelConfig
from lvm.models.attention import CausalSelfAttention


class Block(nn.Module):
    """Attention and a feed-forward layer. Each reads the normalised states and is added to them."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, dropout)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTH: torch.Tensor) -> torch.Tensor:
        """[B, T, width] to [B, T, width]."""
        x_BTH = x_BTH + self.dropout(self.attention(self.norm_1(x_BTH)))
        out: torch.Tensor = x_BTH + self.dropout(self.mlp(self.norm_2(x_BTH)))
        return out


@ARCHITECTURES.register("transformer")
class TransformerTrunk(nn.Module):
    """A projection, the blocks, a normalisation, and tanh. Bounded like an LSTM's, the states retrieve better at long contexts (64)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.dim, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """[B, T, dim] to [B, T, width]."""
        h_BTH = self.project(x_BTD)
        for block in self.blocks:
            h_BTH = block(h_BTH)
        out: torch.Tensor = self.norm(h_BTH).tanh()
        return out
