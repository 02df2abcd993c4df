"""AMN trunk: attention over the context on top of its mean.

The mean of the context is a strong baseline; here it is the query. At every position the running mean of the context attends to the
chunks so far, and the result is added to it.
"""

import torch
from torch import nn

from lvm.config import ARCHITECTURES, ModelConfig
from lvm.models.attention import CausalSelfAttention


class AMNLayer(nn.Module):
    """Attention with the mean as query, then a feed-forward layer; both are added to the mean."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_mean = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, mean_BTH: torch.Tensor, context_BTH: torch.Tensor) -> torch.Tensor:
        """Mean and context, both [B, T, width], to the updated mean."""
        found = self.attention(self.norm_context(context_BTH), self.norm_mean(mean_BTH))
        mean_BTH = mean_BTH + self.dropout(found)
        out: torch.Tensor = mean_BTH + self.dropout(self.mlp(self.norm_mlp(mean_BTH)))
        return out


@ARCHITECTURES.register("amn")
class AMNTrunk(nn.Module):
    """A projection, its running mean, and the layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.dim, config.width)
        self.layers = nn.ModuleList(AMNLayer(config.width, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """[B, T, dim] to [B, T, width]."""
        context = self.project(x_BTD)
        # In float32, since bfloat16 does not represent every integer above 256.
        counts = torch.arange(1, context.shape[1] + 1, device=context.device, dtype=torch.float32)
        mean = (context.float().cumsum(1) / counts[:, None]).to(context.dtype)
        for layer in self.layers:
            mean = layer(mean, context)
        out: torch.Tensor = self.norm(mean)
        return out
