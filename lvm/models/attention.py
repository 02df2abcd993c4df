"""Causal multi-head self-attention with a penalty on distance, for the trunks that use attention."""

import torch
from torch import nn
from torch.nn import functional as F

HEAD_DIM = 64
"""Dimensions of an attention head."""


class CausalSelfAttention(nn.Module):
    """Softmax attention over the context so far (Vaswani et al. 2017), by PyTorch's fused kernel.

    Positions enter as a penalty on distance (ALiBi, Press et al. 2022, arXiv 2108.12409): older chunks weigh less, in some heads much less
    and in others hardly, like in the weighted means that a model has to beat. The penalty depends on distance alone, so a window may
    start anywhere in a document.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = width // HEAD_DIM
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BTH: torch.Tensor, query_BTH: torch.Tensor | None = None) -> torch.Tensor:
        """[B, T, width] to [B, T, width]. Queries come from `query_BTH` where it is given, else from `x_BTH`."""
        B, T, H = x_BTH.shape
        q, k, v = self.qkv(x_BTH).view(B, T, 3, self.heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
        if query_BTH is not None:
            q = F.linear(query_BTH, self.qkv.weight[:H]).view(B, T, self.heads, HEAD_DIM).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, distance_penalty(self.heads, T, q), dropout_p=dropout)
        result: torch.Tensor = self.out(out.transpose(1, 2).reshape(B, T, H))
        return result


def distance_penalty(heads: int, steps: int, like: torch.Tensor) -> torch.Tensor:
    """The penalty on the score of query t with key s: [heads, T, T], with the dtype and on the device of `like`.

    It is -slope * (t - s), and -inf where s is later than t. Head h of H has the slope 2^(-8h / H), as in the paper.
    """
    slope_H = 2.0 ** (-8.0 * torch.arange(1, heads + 1, device=like.device) / heads)
    position_T = torch.arange(steps, device=like.device)
    distance_TT = position_T[:, None] - position_T
    penalty_HTT = -slope_H[:, None, None] * distance_TT
    return penalty_HTT.masked_fill(distance_TT < 0, -torch.inf).to(like.dtype)
