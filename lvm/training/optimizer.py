"""AdamW, and the share of each loss term in the gradient."""

import math
from collections.abc import Iterable, Sequence

import torch

from lvm.config import TrainConfig
from lvm.models import Predictor


def make_optimizer(model: Predictor, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019). Biases, gains and lag weights are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def gradient_norm(gradients: Iterable[torch.Tensor | None]) -> float:
    """Euclidean norm of all gradients together; None stands for a weight that has none."""
    return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))


def shares(norms: dict[str, float]) -> dict[str, float]:
    """Each term's gradient norm over the largest one, under the names that they are logged by."""
    largest = max(norms.values()) or 1.0
    return {f"train/gradient_share_{name}": norm / largest for name, norm in norms.items()}


def gradient_shares(parts: dict[str, torch.Tensor], weights: Sequence[torch.Tensor]) -> dict[str, float]:
    """`shares` of the weighted terms `parts`, whose graph is kept."""
    return shares(
        {name: gradient_norm(torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)) for name, part in parts.items()}
    )
