"""Mamba2 trunk: selective state-space blocks (Dao & Gu 2024, arXiv 2405.21060).

One head of the state-space layer keeps a state S [P, N] and, at each step, forgets and writes:

    S_t = exp(A dt_t) S_{t-1} + dt_t x_t B_t^T        y_t = S_t C_t + D x_t

with scalars A < 0 and D a head, and dt, B, C computed from the input ("selective"). The
recurrence is the definition (`ssd_recurrent`). `ssd_chunked` computes the same in parallel: inside a chunk
as masked attention, between chunks by passing states. A test checks that the two are equal.

Shape letters: B batch, T time, H heads, P channels of a head, N state size, K chunks, L length.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ARCHITECTURES, ModelConfig

try:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined as fused_scan
except ImportError:
    fused_scan = None

HEAD_DIM = 64
STATE = 64
CONVOLUTION = 4
EXPAND = 2
CHUNK = 64


def scan_name(device: torch.device) -> str:
    """Which form of the scan runs on `device`, in words."""
    if fused_scan is not None and device.type == "cuda":
        return "the fused kernel of mamba-ssm"
    return "pure PyTorch, chunked (the fused kernel of mamba-ssm needs a CUDA device and the package)"


def ssd_recurrent(x_BTHP: torch.Tensor, dt_BTH: torch.Tensor, A_H: torch.Tensor, B_BTN: torch.Tensor, C_BTN: torch.Tensor) -> torch.Tensor:
    """The state-space recurrence, one step at a time: the definition. Returns y [B, T, H, P] without the term D x."""
    state = x_BTHP.new_zeros(*x_BTHP[:, 0].shape, B_BTN.shape[-1])
    outputs = []
    for t in range(x_BTHP.shape[1]):
        decay_BH = torch.exp(A_H * dt_BTH[:, t])
        write = torch.einsum("bh,bhp,bn->bhpn", dt_BTH[:, t], x_BTHP[:, t], B_BTN[:, t])
        state = decay_BH[..., None, None] * state + write
        outputs.append(torch.einsum("bhpn,bn->bhp", state, C_BTN[:, t]))
    return torch.stack(outputs, 1)


def ssd_chunked(
    x_BTHP: torch.Tensor,
    dt_BTH: torch.Tensor,
    A_H: torch.Tensor,
    B_BTN: torch.Tensor,
    C_BTN: torch.Tensor,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """The same as `ssd_recurrent`, in parallel over the time of a chunk and over chunks (section 6 of the paper)."""
    B, T, H, P = x_BTHP.shape
    length = min(chunk, T)
    pad = -T % length
    if pad:
        # dt = 0 neither decays nor writes, so padding at the end changes nothing before it.
        x_BTHP, dt_BTH = F.pad(x_BTHP, (0, 0, 0, 0, 0, pad)), F.pad(dt_BTH, (0, 0, 0, pad))
        B_BTN, C_BTN = F.pad(B_BTN, (0, 0, 0, pad)), F.pad(C_BTN, (0, 0, 0, pad))
    K = x_BTHP.shape[1] // length
    x = (x_BTHP * dt_BTH[..., None]).view(B, K, length, H, P)
    b, c = B_BTN.view(B, K, length, -1), C_BTN.view(B, K, length, -1)
    log_decay = (A_H * dt_BTH).view(B, K, length, H).permute(0, 3, 1, 2)  # [B, H, K, L], all <= 0
    total = log_decay.cumsum(-1)

    # Inside a chunk: position l reads what s <= l wrote, decayed by exp(sum of s+1..l).
    decay_BHKLS = torch.exp(segment_sums(log_decay))
    inside = torch.einsum("bkln,bksn,bhkls,bkshp->bklhp", c, b, decay_BHKLS, x)

    # The state that each chunk adds, and the state that has arrived at its beginning from all chunks before it.
    left = torch.einsum("bkln,bhkl,bklhp->bkhpn", b, torch.exp(total[..., -1:] - total), x)
    across = torch.exp(segment_sums(F.pad(total[..., -1], (1, 0))))  # [B, H, K+1, K+1]
    arrived = torch.einsum("bhzk,bkhpn->bzhpn", across[:, :, :-1, 1:], left)
    outside = torch.einsum("bkln,bkhpn,bhkl->bklhp", c, arrived, torch.exp(total))
    return (inside + outside).reshape(B, K * length, H, P)[:, :T]


def segment_sums(a: torch.Tensor) -> torch.Tensor:
    """out[..., l, s] = a[s+1] + ... + a[l] for s <= l, and -inf above the diagonal. [..., L] to [..., L, L].

    Each sum is accumulated separately, since differences of one cumulative sum would lose precision.
    """
    L = a.shape[-1]
    lower = torch.ones(L, L, dtype=torch.bool, device=a.device).tril()
    terms = a[..., :, None].expand(*a.shape, L).masked_fill(~lower.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~lower, -torch.inf)


class Mamba2Block(nn.Module):
    """Projection, short causal convolution, state space, gated normalisation, projection."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = EXPAND * width
        self.heads = self.inner // HEAD_DIM
        self.in_proj = nn.Linear(width, 2 * self.inner + 2 * STATE + self.heads, bias=False)
        channels = self.inner + 2 * STATE
        self.conv = nn.Conv1d(channels, channels, CONVOLUTION, groups=channels)
        # dt from 0.001 to 0.1 and A from -1 to -16, as in the paper's code.
        dt = torch.exp(torch.linspace(-6.9, -2.3, self.heads))
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.A_log = nn.Parameter(torch.log(torch.linspace(1, 16, self.heads)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(self.inner)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(self.inner, width, bias=False)

    def forward(self, u_BTW: torch.Tensor, recurrent: bool = False) -> torch.Tensor:
        """[B, T, width] to [B, T, width]. `recurrent` computes the definition step by step."""
        B, T, _ = u_BTW.shape
        gate, mixed, dt_BTH = self.in_proj(u_BTW).split([self.inner, self.inner + 2 * STATE, self.heads], dim=-1)
        mixed = self.conv(F.pad(mixed.transpose(1, 2), (CONVOLUTION - 1, 0))).transpose(1, 2)
        x, b, c = F.silu(mixed).split([self.inner, STATE, STATE], dim=-1)
        x_BTHP = x.reshape(B, T, self.heads, HEAD_DIM)
        dt_BTH = F.softplus(dt_BTH.float() + self.dt_bias)
        A_H = -torch.exp(self.A_log.float())
        if recurrent:
            y = ssd_recurrent(x_BTHP.float(), dt_BTH, A_H, b.float(), c.float())
        elif fused_scan is not None and x.is_cuda:
            y = fused_scan(x_BTHP, dt_BTH, A_H, b[:, :, None], c[:, :, None], CHUNK)
        else:
            # In float32 also under autocast: decays multiply over long stretches.
            with torch.autocast(x.device.type, enabled=False):
                y = ssd_chunked(x_BTHP.float(), dt_BTH, A_H, b.float(), c.float())
        y = (y + self.D[:, None] * x_BTHP).reshape(B, T, self.inner)
        out: torch.Tensor = self.out_proj(self.dropout(self.norm(y * F.silu(gate))))
        return out


@ARCHITECTURES.register("mamba2")
class Mamba2Trunk(nn.Module):
    """A projection and pre-norm residual Mamba2 blocks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.dim, config.width)
        self.norms = nn.ModuleList(nn.RMSNorm(config.width) for _ in range(config.layers))
        self.blocks = nn.ModuleList(Mamba2Block(config.width, config.inner_dropout) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.RMSNorm(config.width)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """[B, T, dim] to [B, T, width]."""
        h_BTH = self.project(x_BTD)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            h_BTH = h_BTH + self.dropout(block(norm(h_BTH)))
        out: torch.Tensor = self.norm(h_BTH)
        return out
