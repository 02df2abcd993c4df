"""Every trunk is causal, reads its whole context, and is the architecture that it is called."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lvm.config import ARCHITECTURES, ModelConfig
from lvm.models import build_predictor
from lvm.models.amn import AMNLayer
from lvm.models.attention import HEAD_DIM, CausalSelfAttention, distance_penalty
from lvm.models.mamba2 import Mamba2Block
from lvm.models.transformer import Block

DIM = 24
# The module that only this architecture has.
OWN_MODULE: dict[str, type[nn.Module]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "mamba2": Mamba2Block,
    "transformer": Block,
    "amn": AMNLayer,
}
every_arch = pytest.mark.parametrize("arch", sorted(ARCHITECTURES))


def config(arch: str, layers: int = 1, dropout: float = 0.1) -> ModelConfig:
    return ModelConfig(arch=arch, dim=DIM, width=64, layers=layers, dropout=dropout)  # type: ignore[arg-type]


def trunk(arch: str, layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES[arch](config(arch, layers)).eval()


def test_every_architecture_of_the_configuration_has_a_trunk_and_no_other() -> None:
    assert set(ARCHITECTURES) == set(OWN_MODULE)


def test_no_two_architectures_share_a_class() -> None:
    found = {type(build_predictor(config(arch), torch.zeros(DIM), torch.ones(DIM)).trunk) for arch in ARCHITECTURES}
    assert len(found) == len(ARCHITECTURES) == 5


@every_arch
def test_the_trunk_is_the_declared_one_and_holds_no_other_architecture(arch: str) -> None:
    model = build_predictor(config(arch, layers=2), torch.zeros(DIM), torch.ones(DIM))
    assert type(model.trunk) is ARCHITECTURES[arch]
    held = {name for name, kind in OWN_MODULE.items() if any(isinstance(module, kind) for module in model.modules())}
    assert held == {arch}


@every_arch
@pytest.mark.parametrize("layers", [1, 3])
def test_depth_is_the_configured_one(arch: str, layers: int) -> None:
    own = [module for module in trunk(arch, layers).modules() if isinstance(module, OWN_MODULE[arch])]
    depth = own[0].num_layers if isinstance(own[0], nn.RNNBase) else len(own)
    assert depth == layers


@torch.no_grad()
def test_a_transformers_states_are_bounded_as_an_lstms_are() -> None:
    x = 100 * torch.randn(3, 9, DIM)
    bounds = {arch: float(trunk(arch)(x).abs().max()) for arch in ("lstm", "transformer", "mamba2")}
    assert bounds["lstm"] <= 1 and bounds["transformer"] <= 1 < bounds["mamba2"]


@every_arch
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_state_comes_out_for_every_chunk(arch: str, steps: int) -> None:
    assert trunk(arch)(torch.randn(3, steps, DIM)).shape == (3, steps, 64)


# 70 steps cross the border of Mamba2's chunks of 64.
@every_arch
@pytest.mark.parametrize(("steps", "cuts"), [(12, range(11)), (70, (62, 63, 64))])
@torch.no_grad()
def test_later_chunks_never_change_earlier_states(arch: str, steps: int, cuts: range | tuple[int, ...]) -> None:
    model = trunk(arch)
    x, other = torch.randn(2, steps, DIM), torch.randn(2, steps, DIM)
    before = model(x)
    for t in cuts:
        changed = torch.cat([x[:, : t + 1], other[:, t + 1 :]], 1)
        after = model(changed)
        torch.testing.assert_close(after[:, : t + 1], before[:, : t + 1], atol=1e-5, rtol=0)
        assert (after[:, t + 1] - before[:, t + 1]).abs().max() > 1e-3


@every_arch
@torch.no_grad()
def test_the_oldest_chunk_and_the_order_of_chunks_reach_the_last_state(arch: str) -> None:
    model = trunk(arch)
    x = torch.randn(4, 6, DIM)
    last = model(x)[:, -1]
    changed = x.clone()
    changed[:, 0] = torch.randn(4, DIM)
    assert (model(changed)[:, -1] - last).abs().max() > 1e-4
    swapped = x[:, [1, 0, 2, 3, 4, 5]]
    assert (model(swapped)[:, -1] - last).abs().max() > 1e-4


@every_arch
def test_every_weight_takes_part(arch: str) -> None:
    model = trunk(arch)
    (model(torch.randn(3, 7, DIM)) * torch.randn(3, 7, 64)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    assert idle == []


@every_arch
def test_dropout_acts_in_training_only(arch: str) -> None:
    model = trunk(arch)
    x = torch.randn(2, 5, DIM)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@given(heads=st.integers(1, 32), early=st.integers(0, 30), distance=st.integers(0, 30), shift=st.integers(0, 60))
def test_attention_falls_with_distance_by_each_heads_own_slope_and_depends_on_nothing_else(
    heads: int, early: int, distance: int, shift: int
) -> None:
    penalty = distance_penalty(heads, 128, torch.empty(0, dtype=torch.float64))
    at, moved = early + distance, early + distance + shift
    for head in range(heads):
        assert float(penalty[head, at, early]) == pytest.approx(-distance * 2 ** (-8 * (head + 1) / heads))
    assert torch.equal(penalty[:, at, early], penalty[:, moved, early + shift])
    assert penalty.triu(1).isneginf().sum() == heads * 128 * 127 / 2


@pytest.mark.parametrize("own_query", [True, False])
@torch.no_grad()
def test_attention_is_a_softmax_over_the_chunks_so_far(own_query: bool) -> None:
    torch.manual_seed(0)
    attention = CausalSelfAttention(2 * HEAD_DIM, 0.0)
    x, other = torch.randn(1, 5, 2 * HEAD_DIM), torch.randn(1, 5, 2 * HEAD_DIM)
    asking = x if own_query else other
    found = attention(x) if own_query else attention(x, other)
    weights_q, weights_k, weights_v = attention.qkv.weight.chunk(3)
    heads = []
    for head, slope in ((slice(0, HEAD_DIM), 2**-4), (slice(HEAD_DIM, 2 * HEAD_DIM), 2**-8)):
        q, k, v = (asking @ weights_q[head].T)[0], (x @ weights_k[head].T)[0], (x @ weights_v[head].T)[0]
        rows = [(q[t] @ k[: t + 1].T / HEAD_DIM**0.5 - slope * torch.arange(t, -1, -1)).softmax(-1) @ v[: t + 1] for t in range(5)]
        heads.append(torch.stack(rows))
    torch.testing.assert_close(found[0], torch.cat(heads, -1) @ attention.out.weight.T, atol=1e-5, rtol=1e-5)
