"""AdamW, its learning rate over the steps, and who is steering."""

import math
from collections.abc import Sequence

import torch

from lvm.config import TrainConfig
from lvm.models import Predictor


def make_optimizer(model: Predictor, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); biases, gains and lag weights are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to zero; never above `config.learning_rate`."""
    warm = config.warmup * total
    if step < warm:
        return config.learning_rate * min(1.0, (step + 1) / warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def gradient_shares(parts: dict[str, torch.Tensor], weights: Sequence[torch.Tensor]) -> dict[str, float]:
    """Norm of each weighted term's gradient over that of the largest: who is steering."""
    norms = {}
    for name, part in parts.items():
        gradients = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
        norms[name] = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
    largest = max(norms.values()) or 1.0
    return {f"train/gradient_share_{name}": norm / largest for name, norm in norms.items()}
