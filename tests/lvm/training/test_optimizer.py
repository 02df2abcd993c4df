"""Each term's share of the gradient."""

import math

import pytest
import torch
from torch import nn

from lvm.training.optimizer import gradient_shares


def test_gradient_shares_are_norms_over_the_largest() -> None:
    weight, other = nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.tensor(1.0))
    parts = {"small": 0.5 * weight.sum(), "large": (weight**2).sum(), "elsewhere": 2 * other, "none": 0 * other}
    shares = gradient_shares(parts, [weight, other])
    # Norms: 0.5 * sqrt(2), 2 * 5, 2, 0.
    assert shares == pytest.approx(
        {
            "train/gradient_share_small": 0.5 * math.sqrt(2) / 10,
            "train/gradient_share_large": 1.0,
            "train/gradient_share_elsewhere": 0.2,
            "train/gradient_share_none": 0.0,
        }
    )
    assert weight.grad is None, "measuring leaves no gradient behind"
