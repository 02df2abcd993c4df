"""The parallel state-space layer is the recurrence that defines it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lvm.models.mamba2 import Mamba2Block, segment_sums, ssd_chunked, ssd_recurrent

COMMON = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)


def state_space_inputs(seed: int, steps: int, heads: int = 3, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """x, dt, A, B, C of the scale that a block feeds the layer: time steps about .3, A from -1 to -16."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    dt = F.softplus(normal(2, steps, heads) - 1)
    A = -torch.linspace(1, 16, heads, dtype=dtype)
    return [normal(2, steps, heads, 4), dt, A, normal(2, steps, 5) / 2, normal(2, steps, 5) / 2]


@COMMON
@given(seed=seeds, steps=st.integers(1, 150), chunk=st.integers(1, 80), heads=st.integers(1, 3))
def test_the_chunked_form_equals_the_recurrence_at_any_length_and_chunk_size(seed: int, steps: int, chunk: int, heads: int) -> None:
    inputs = state_space_inputs(seed, steps, heads)
    torch.testing.assert_close(ssd_chunked(*inputs, chunk=chunk), ssd_recurrent(*inputs), atol=1e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, steps=st.integers(1, 40), chunk=st.integers(1, 20))
def test_gradients_of_the_chunked_form_equal_those_of_the_recurrence(seed: int, steps: int, chunk: int) -> None:
    inputs = [value.requires_grad_() for value in state_space_inputs(seed, steps, dtype=torch.float64)]
    chunked, recurrent = ssd_chunked(*inputs, chunk=chunk), ssd_recurrent(*inputs)
    weights = torch.randn(chunked.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    of_chunked = torch.autograd.grad((chunked * weights).sum(), inputs)
    of_recurrent = torch.autograd.grad((recurrent * weights).sum(), inputs)
    torch.testing.assert_close(of_chunked, of_recurrent, atol=1e-9, rtol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, steps=st.integers(1, 12))
def test_the_recurrence_is_the_decayed_sum_over_all_earlier_writes(seed: int, steps: int) -> None:
    inputs = state_space_inputs(seed, steps, dtype=torch.float64)
    x, dt, A, b, c = (value.numpy() for value in inputs)
    expected = np.zeros_like(x)
    for t in range(steps):
        for s in range(t + 1):
            decay = np.exp(A * dt[:, s + 1 : t + 1].sum(1))
            match = (c[:, t] * b[:, s]).sum(-1)[:, None]
            expected[:, t] += (match * decay * dt[:, s])[..., None] * x[:, s]
    np.testing.assert_allclose(ssd_recurrent(*inputs).numpy(), expected, atol=1e-10)


def test_strong_decay_gives_finite_outputs_and_gradients() -> None:
    inputs = state_space_inputs(0, 70)
    inputs[1] = inputs[1] + 50  # exp(-50 * 16) underflows; its reciprocal would be infinite
    inputs = [value.requires_grad_() for value in inputs]
    out = ssd_chunked(*inputs, chunk=32)
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert all(bool(value.isfinite().all()) for value in (out, *gradients))


@COMMON
@given(values=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=12))
def test_segment_sums_add_up_each_stretch_and_forbid_the_future(values: list[float]) -> None:
    found = segment_sums(torch.tensor(values, dtype=torch.float64))
    for later in range(len(values)):
        for earlier in range(len(values)):
            expected = sum(values[earlier + 1 : later + 1]) if earlier <= later else -np.inf
            assert found[later, earlier].item() == pytest.approx(expected, abs=1e-9)


def test_segment_sums_do_not_cancel_behind_a_large_term() -> None:
    found = segment_sums(torch.tensor([1e8, 1.0, 1.0]))
    assert found[2, 0].item() == 2.0  # as differences of one running sum in float32: 0


@pytest.mark.parametrize("steps", [1, 3, 63, 64, 65, 130])
def test_a_whole_block_gives_the_same_in_both_forms(steps: int) -> None:
    torch.manual_seed(steps)
    block = Mamba2Block(64, dropout=0)
    u = torch.randn(2, steps, 64)
    torch.testing.assert_close(block(u), block(u, recurrent=True), atol=1e-5, rtol=1e-5)


def test_a_whole_block_has_the_same_gradients_in_both_forms() -> None:
    torch.manual_seed(0)
    block = Mamba2Block(64, dropout=0)
    u = torch.randn(2, 70, 64, requires_grad=True)
    weights = torch.randn(2, 70, 64)
    inputs = [u, *block.parameters()]
    chunked = torch.autograd.grad((block(u) * weights).mean(), inputs)
    recurrent = torch.autograd.grad((block(u, recurrent=True) * weights).mean(), inputs)
    for a, b in zip(chunked, recurrent, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, atol=1e-5 * b.abs().max().item(), rtol=1e-4)


def test_dropout_inside_a_block_reaches_training_alone() -> None:
    torch.manual_seed(0)
    block, u = Mamba2Block(64, dropout=0.5), torch.randn(2, 9, 64)
    assert not torch.equal(block(u), block(u))
    torch.testing.assert_close(block.eval()(u), block(u))


def test_a_fresh_block_forgets_at_the_rates_of_the_paper() -> None:
    block = Mamba2Block(256, dropout=0)
    steps, rates = F.softplus(block.dt_bias.detach()), block.A_log.detach().exp()
    assert steps.min().item() == pytest.approx(0.001, rel=0.02)
    assert steps.max().item() == pytest.approx(0.1, rel=0.02)
    assert (rates.min().item(), rates.max().item()) == (pytest.approx(1), pytest.approx(16))


def test_under_bfloat16_autocast_the_state_space_still_runs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []

    def watched(*args: torch.Tensor) -> torch.Tensor:
        assert not torch.is_autocast_enabled("cpu")
        seen.extend(value.dtype for value in args)
        return ssd_chunked(*args)

    monkeypatch.setattr("lvm.models.mamba2.ssd_chunked", watched)
    with torch.autocast("cpu", torch.bfloat16):
        Mamba2Block(64, dropout=0)(torch.randn(1, 5, 64))
    assert set(seen) == {torch.float32}
