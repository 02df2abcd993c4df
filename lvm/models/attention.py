"""Causal multi-head self-attention with rotary positions, shared by the trunks that attend."""

import torch
from torch import nn
from torch.nn import functional as F

HEAD_DIM = 64


class CausalSelfAttention(nn.Module):
    """Softmax attention over the context so far (Vaswani et al. 2017), PyTorch's fused kernel.

    Positions enter by rotation of queries and keys (Su et al. 2021), so that attention depends
    on distance alone and a window may start anywhere in a document.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = width // HEAD_DIM
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BTH: torch.Tensor, query_BTH: torch.Tensor | None = None) -> torch.Tensor:
        """[B, T, width] to [B, T, width]. `query_BTH`, if given, asks in place of `x_BTH`."""
        B, T, H = x_BTH.shape
        q, k, v = self.qkv(x_BTH).view(B, T, 3, self.heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
        if query_BTH is not None:
            q = F.linear(query_BTH, self.qkv.weight[:H]).view(B, T, self.heads, HEAD_DIM).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(rotate(q), rotate(k), v, dropout_p=dropout, is_causal=True)
        result: torch.Tensor = self.out(out.transpose(1, 2).reshape(B, T, H))
        return result


def rotate(x_BHTC: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding: pairs of channels turn by an angle proportional to the position."""
    T, C = x_BHTC.shape[-2:]
    frequency = 1e4 ** (-torch.arange(0, C, 2, device=x_BHTC.device, dtype=torch.float32) / C)
    angle_TC = torch.arange(T, device=x_BHTC.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle_TC.cos().to(x_BHTC.dtype), angle_TC.sin().to(x_BHTC.dtype)
    a, b = x_BHTC.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
