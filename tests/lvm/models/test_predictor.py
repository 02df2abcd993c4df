"""The predictor starts as closed forms or lag weights, predicts at every position and looks at no later one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lvm.config import ARCHITECTURES, ModelConfig
from lvm.models import Prediction, Predictor, build_predictor
from lvm.models.baselines import Baselines
from lvm.models.predictor import MIN_STD_SHARE, LagWeights
from tests.support.closed_forms import random_baselines

DIM = 20
every_arch = pytest.mark.parametrize("arch", sorted(ARCHITECTURES))


def fresh(arch: str = "gru", lags: int = 4, dropout: float = 0.1) -> Predictor:
    torch.manual_seed(0)
    config = ModelConfig(arch=arch, dim=DIM, width=64, lags=lags, dropout=dropout)  # type: ignore[arg-type]
    return build_predictor(config, torch.randn(DIM), torch.rand(DIM) + 0.5).eval()


def awake(arch: str = "gru", lags: int = 4, dropout: float = 0.1) -> Predictor:
    """A predictor whose residuals are not zero, as after training: its trunk matters."""
    model = fresh(arch, lags, dropout)
    for head in (model.decoder_residual, model.cosine_residual):
        nn.init.normal_(head.fc2.weight, std=0.1)
        nn.init.normal_(head.fc2.bias, std=0.1)
    nn.init.normal_(model.decoder_norm.weight, std=0.1)
    return model


@every_arch
@pytest.mark.parametrize("steps", [1, 3, 9])
@torch.no_grad()
def test_a_fresh_predictor_is_its_lag_weights_around_the_mean_at_the_encoders_length(arch: str, steps: int) -> None:
    model = fresh(arch)
    weights = 0.6 ** np.arange(4) / (0.6 ** np.arange(4)).sum()
    x, mean = torch.randn(2, steps, DIM), model.mean.numpy()
    expected = np.zeros((2, steps, DIM))
    for t in range(steps):
        for lag in range(min(4, t + 1)):
            expected[:, t] += weights[lag] * (x[:, t - lag].numpy() - mean)
    found = model(x)
    length = np.sqrt((mean**2 + model.std.numpy() ** 2).sum())
    decoder = length * (mean + expected) / np.linalg.norm(mean + expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(found.decoder.numpy(), decoder, atol=1e-5)
    unit = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(found.cosine.numpy(), unit, atol=1e-5)


# The start from closed forms


def started(arch: str = "gru", dropout: float = 0.0) -> tuple[Predictor, Baselines]:
    """A fresh predictor that starts from closed forms for contexts of four chunks, and these."""
    torch.manual_seed(0)
    mean = torch.randn(DIM)
    fitted = random_baselines(mean)
    config = ModelConfig(arch=arch, dim=DIM, width=64, lags=6, dropout=dropout)
    return build_predictor(config, mean, torch.rand(DIM) + 0.5, fitted).eval(), fitted


@every_arch
@torch.no_grad()
def test_an_untrained_predictor_is_the_strongest_baseline_of_each_head(arch: str) -> None:
    model, fitted = started(arch)
    for steps in (4, 9):
        x = torch.randn(3, steps, DIM)
        expected, (y_dec, y_cos) = fitted.predict(x), model(x, return_both=True)
        torch.testing.assert_close(F.normalize(y_dec, dim=-1), F.normalize(expected["ridge_knn"], dim=-1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(y_cos, F.normalize(expected["whitened_ridge"], dim=-1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_every_position_starts_from_the_closed_forms_of_a_context_that_ends_there() -> None:
    model, _ = started()
    nn.init.normal_(model.decoder_lags.weight, std=0.1)
    x = torch.randn(2, 9, DIM)
    everywhere = model(x)
    for t in range(9):
        y_dec, y_cos = model(x[:, : t + 1], return_both=True)
        torch.testing.assert_close(everywhere.decoder[:, t], y_dec, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(everywhere.cosine[:, t], y_cos, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_training_searches_no_neighbours_and_counts_the_whole_residual() -> None:
    model, fitted = started()
    for head in (model.decoder_residual, model.cosine_residual):
        nn.init.normal_(head.fc2.weight, std=0.1)
    model.decoder_share.fill_(0.25)
    model.cosine_share.fill_(0.75)
    x = torch.randn(2, 5, DIM)
    centred, states = model.states(x)
    regression, query = model.start(centred, last=True)
    added = [model.std.mean() * head(states[:, -1:]) for head in (model.decoder_residual, model.cosine_residual)]
    found = fitted.predict(x)
    neighbours = (found["ridge_knn"] - found["ridge"])[:, None]

    def directions(shares: tuple[float, float], successors: float) -> tuple[torch.Tensor, torch.Tensor]:
        decoder = model.mean + regression + shares[0] * added[0] + successors * neighbours
        whitened = F.normalize((query + shares[1] * added[1]) @ model.whitener, dim=-1)
        return F.normalize(decoder, dim=-1), F.normalize(whitened - model.start.hub, dim=-1)

    for training, expected in ((True, directions((1, 1), 0)), (False, directions((0.25, 0.75), 1))):
        prediction = model.train(training).predict(x, last=True)
        torch.testing.assert_close(F.normalize(prediction.decoder, dim=-1), expected[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(prediction.cosine, expected[1], atol=1e-4, rtol=1e-4)


def test_the_closed_forms_are_neither_trained_nor_stored_with_the_model() -> None:
    model, _ = started()
    assert not any("start" in name for name in [*model.state_dict(), *dict(model.named_parameters())])


@torch.no_grad()
def test_lags_before_the_beginning_count_as_the_training_mean() -> None:
    model = fresh(lags=6)
    x = torch.randn(2, 2, DIM)
    padded = torch.cat([model.mean.expand(2, 5, DIM), x], 1)
    torch.testing.assert_close(model(x).decoder, model(padded).decoder[:, -2:])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31))
def test_a_lag_weight_multiplies_the_chunk_that_far_back(lags: int, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layer = LagWeights(lags)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(lags, generator=generator))
        x = torch.randn(1, steps, 3, generator=generator)
        found = layer(x, last=False)
        torch.testing.assert_close(layer(x, last=True), found[:, -1:], atol=1e-5, rtol=1e-5)
        for t in range(steps):
            expected = sum((layer.weight[k] * x[:, t - k] for k in range(min(lags, t + 1))), torch.zeros(1, 3))
            torch.testing.assert_close(found[:, t], expected, atol=1e-5, rtol=1e-5)


@every_arch
@torch.no_grad()
def test_y_cos_has_unit_length_and_y_dec_does_not_have_to(arch: str) -> None:
    found = awake(arch)(3 * torch.randn(4, 6, DIM))
    torch.testing.assert_close(found.cosine.norm(dim=-1), torch.ones(4, 6))
    assert (found.decoder.norm(dim=-1) - 1).abs().max() > 0.1


@every_arch
def test_the_regression_on_direction_leaves_y_decs_length_alone_and_the_norm_term_its_direction(arch: str) -> None:
    model, x, target = awake(arch), torch.randn(4, 6, DIM), torch.randn(4, 6, DIM)
    head = (model.decoder_norm.weight, model.decoder_norm.bias)
    direction = (model.decoder_lags.weight, model.decoder_residual.fc2.weight)
    for loss, moved, still in (
        (1 - F.cosine_similarity(model(x).decoder, target, dim=-1).mean(), direction, head),
        (((model(x).decoder.norm(dim=-1) - target.norm(dim=-1)) / 4).square().mean(), head, direction),
    ):
        gradients = torch.autograd.grad(loss, [*moved, *still])
        for gradient in gradients[:2]:
            assert gradient.abs().max() > 1e-3
        for gradient in gradients[2:]:
            assert gradient.abs().max() < 1e-6


@torch.no_grad()
def test_return_both_gives_the_last_position_and_its_absence_every_position() -> None:
    model, x = awake(), torch.randn(3, 5, DIM)
    everywhere = model(x)
    assert isinstance(everywhere, Prediction)
    assert everywhere.decoder.shape == everywhere.cosine.shape == (3, 5, DIM)
    y_dec, y_cos = model(x, return_both=True)
    torch.testing.assert_close(y_dec, everywhere.decoder[:, -1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(y_cos, everywhere.cosine[:, -1], atol=1e-6, rtol=1e-5)
    assert torch.equal(model(x, return_both=False), y_cos)


@every_arch
@torch.no_grad()
def test_a_window_predicts_what_a_longer_pass_predicts_there(arch: str) -> None:
    model, x = awake(arch), torch.randn(2, 10, DIM)
    everywhere = model(x)
    for length in range(1, 11):
        y_dec, y_cos = model(x[:, :length], return_both=True)
        torch.testing.assert_close(y_dec, everywhere.decoder[:, length - 1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(y_cos, everywhere.cosine[:, length - 1], atol=1e-5, rtol=1e-5)


@every_arch
@torch.no_grad()
def test_no_prediction_depends_on_a_later_chunk(arch: str) -> None:
    model, x, other = awake(arch), torch.randn(2, 9, DIM), torch.randn(2, 9, DIM)
    before = model(x)
    for t in range(8):
        after = model(torch.cat([x[:, : t + 1], other[:, t + 1 :]], 1))
        for mine, theirs in zip(after, before, strict=True):
            torch.testing.assert_close(mine[:, : t + 1], theirs[:, : t + 1], atol=1e-5, rtol=0)
            assert (mine[:, t + 1] - theirs[:, t + 1]).abs().max() > 1e-3


@torch.no_grad()
def test_documents_of_a_batch_do_not_see_each_other() -> None:
    model, x = awake("transformer"), torch.randn(3, 6, DIM)
    alone = torch.cat([model(x[i : i + 1]).decoder for i in range(3)])
    torch.testing.assert_close(model(x).decoder, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("changed", "head", "other"), [("decoder", 0, 1), ("cosine", 1, 0)])
@torch.no_grad()
def test_the_two_heads_share_nothing_but_the_trunk(changed: str, head: int, other: int) -> None:
    model, x = awake(), torch.randn(2, 5, DIM)
    before = model(x)
    getattr(model, f"{changed}_lags").weight.copy_(torch.randn(4))
    getattr(model, f"{changed}_residual").fc2.bias.add_(torch.randn(DIM))
    after = model(x)
    assert torch.equal(after[other], before[other])
    assert not torch.allclose(after[head], before[head])


def test_the_trunk_learns_although_the_residual_starts_at_zero() -> None:
    model, x, target = fresh(dropout=0.0), torch.randn(8, 6, DIM), torch.randn(8, 6, DIM)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        found = model(x)
        ((found.decoder - target).square().mean() - (found.cosine * target).sum(-1).mean()).backward()
        reached = max(float(p.grad.abs().max()) for p in model.trunk.parameters() if p.grad is not None)
        assert (reached > 0) == (step == 1)  # the first step moves fc2 off zero, then the trunk is reached
        optimizer.step()


class Watcher(nn.Module):
    """A trunk that keeps what it was given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return torch.zeros(*x.shape[:2], 64)


def test_the_trunk_reads_standardised_input_and_dead_dimensions_are_not_blown_up() -> None:
    mean, std = torch.randn(DIM), torch.rand(DIM) + 0.5
    std[3] = 1e-9
    watcher = Watcher()
    model = Predictor(ModelConfig(arch="gru", dim=DIM, width=64), watcher, mean, std).eval()
    x = torch.randn(2, 5, DIM)
    model(x)
    live = torch.arange(DIM) != 3
    torch.testing.assert_close(watcher.seen[..., live], ((x - mean) / std)[..., live])
    torch.testing.assert_close(watcher.seen[..., 3], (x - mean)[..., 3] / (MIN_STD_SHARE * std.mean()))


@every_arch
@pytest.mark.parametrize("scale", [0.05, 20.0])
@torch.no_grad()
def test_an_encoder_of_another_scale_is_predicted_alike(arch: str, scale: float) -> None:
    model, x = awake(arch), torch.randn(2, 5, DIM)
    other = build_predictor(model.config, torch.zeros(DIM), torch.ones(DIM)).eval()
    other.load_state_dict(model.state_dict() | {"mean": scale * model.mean, "std": scale * model.std})
    expected, found = model(x), other(scale * x)
    torch.testing.assert_close(found.decoder / scale, expected.decoder, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.cosine, expected.cosine, atol=1e-4, rtol=1e-4)


@every_arch
@torch.no_grad()
def test_a_reloaded_state_predicts_the_same_and_brings_its_normalisation(arch: str) -> None:
    model, x = awake(arch), torch.randn(2, 5, DIM)
    other = build_predictor(model.config, torch.zeros(DIM), torch.ones(DIM)).eval()
    assert not torch.allclose(other(x).decoder, model(x).decoder)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x).decoder, model(x).decoder)
    assert torch.equal(other(x).cosine, model(x).cosine)


def test_the_statistics_are_copied_not_shared() -> None:
    mean = torch.zeros(DIM)
    model = build_predictor(ModelConfig(arch="gru", dim=DIM, width=64), mean, torch.ones(DIM))
    mean += 1
    assert torch.equal(model.mean, torch.zeros(DIM))


@every_arch
@torch.no_grad()
def test_predictions_are_float32_near_the_exact_ones_under_bfloat16_autocast(arch: str) -> None:
    model, x = awake(arch), torch.randn(2, 5, DIM)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
    assert found.decoder.dtype == found.cosine.dtype == torch.float32
    assert F.cosine_similarity(found.decoder, exact.decoder, dim=-1).min() > 0.999
    assert F.cosine_similarity(found.cosine, exact.cosine, dim=-1).min() > 0.999
