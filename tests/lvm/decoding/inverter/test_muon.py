"""Matrices of one shape, updated together, become what PyTorch's Muon makes of them one by one."""

import copy

import pytest
import torch

from lvm.decoding.inverter.muon import StackedMuon, orthogonal

SHAPES = [(24, 24), (40, 24), (24, 24), (24, 40), (40, 24), (64, 8)]


def matrices(seed: int) -> list[torch.nn.Parameter]:
    dice = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=dice)) for shape in SHAPES]


def trained(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], steps: int, rate: float) -> None:
    dice = torch.Generator().manual_seed(1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - 0.1 * step)
        for number, weight in enumerate(weights):
            gradient = torch.randn(weight.shape, generator=dice)
            weight.grad = None if step == 1 and number == 2 else gradient  # now and then one has none
        optimizer.step()


@pytest.mark.parametrize("steps", [1, 6])
def test_weights_become_those_of_torch(steps: int) -> None:
    own, reference = matrices(0), matrices(0)
    before = copy.deepcopy(own)
    trained(StackedMuon(own, 0.02, 0.1), own, steps, 0.02)
    trained(torch.optim.Muon(reference, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), reference, steps, 0.02)
    for a, b, start in zip(own, reference, before, strict=True):
        moved = (b - start).norm()
        assert moved > 0.01 and (a - b).norm() < 0.01 * moved, "but for the rounding of bfloat16"


def test_its_state_is_that_of_torch() -> None:
    own, reference = matrices(0), matrices(0)
    ours = StackedMuon(own, 0.02, 0.1)
    theirs = torch.optim.Muon(sorted(reference, key=lambda w: w.shape), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    trained(ours, own, 2, 0.02)
    trained(theirs, reference, 2, 0.02)
    theirs.load_state_dict(ours.state_dict())
    again = {k: v["momentum_buffer"] for k, v in theirs.state_dict()["state"].items()}
    for k, v in ours.state_dict()["state"].items():
        assert torch.equal(v["momentum_buffer"], again[k])


@pytest.mark.parametrize("shape", [(3, 24, 40), (3, 40, 24), (1, 16, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    found = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(2)), (3.4445, -4.7750, 2.0315), 5, 1e-7)
    values = torch.linalg.svdvals(found.float())
    assert found.shape == shape and values.min() > 0.3 and values.max() < 1.4
