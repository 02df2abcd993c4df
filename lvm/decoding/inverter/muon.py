"""Muon for many small matrices: matrices of the same shape are orthogonalised together.

Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of each matrix by the
nearest matrix with orthogonal rows or columns, found by Newton-Schulz iterations. `torch.optim.Muon` handles
one matrix at a time with about 23 kernel launches each. For the 57 matrices of an inverter that took longer
than the network's forward and backward pass. Here all matrices of one shape are one batched product. A test
checks that the weights equal those of `torch.optim.Muon`.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch


class StackedMuon(torch.optim.Muon):
    """`torch.optim.Muon` with a tenth of the kernel launches; settings and state are the same.

    It supports only what is used here: Nesterov momentum, and updates scaled to the size of AdamW's (Liu et al.
    2025, arXiv 2502.16982), so that both optimizers share one learning rate.
    """

    def __init__(self, matrices: Sequence[torch.Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(sorted(matrices, key=lambda w: w.shape), lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            matrices = [w for w in group["params"] if w.grad is not None]
            for matrix in matrices:
                if not self.state[matrix]:
                    self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
            for _, same in groupby(matrices, key=lambda w: w.shape):
                self._update(list(same), group)

    def _update(self, matrices: list[torch.Tensor], group: dict[str, Any]) -> None:
        """Update `matrices`, which all have the shape [m, n]."""
        gradients: list[torch.Tensor] = [w.grad for w in matrices if w.grad is not None]
        buffers = [self.state[w]["momentum_buffer"] for w in matrices]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        ahead = torch.stack(torch._foreach_lerp(gradients, buffers, group["momentum"]))
        updates = orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(matrices[0].dtype)
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, updates.unbind(), alpha=-group["lr"] * 0.2 * max(matrices[0].shape) ** 0.5)


def orthogonal(matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> torch.Tensor:
    """`matrices` [k, m, n] with their singular values brought near 1, by Newton-Schulz steps in bfloat16."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
