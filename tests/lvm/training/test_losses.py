"""Each loss term is zero at a perfect prediction, large at its opposite, and reads nothing that it must not read."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lvm.config import EXCLUDED_BEFORE, LossConfig
from lvm.models import Prediction
from lvm.training.batches import BatchVectors
from lvm.training.losses import (
    EncoderStatistics,
    LossInputs,
    contrastive_loss,
    forbidden_negatives,
    loss_terms,
    moments,
    mse,
    norm,
    regression,
    variance,
    weighted,
)

DIM = 16
TERMS = ("regression", "norm", "infonce", "moments", "variance", "mse")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def statistics_of(vectors: torch.Tensor) -> EncoderStatistics:
    unit = F.normalize(vectors, dim=-1)
    spread = {"std": vectors.std(0, correction=0), "unit_std": unit.std(0, correction=0)}
    return EncoderStatistics(mean=vectors.mean(0), norm=float(vectors.norm(dim=-1).mean()), **spread)


def norm_of(value: float) -> EncoderStatistics:
    """An encoder of which only the mean norm is known."""
    return EncoderStatistics(torch.zeros(DIM), torch.ones(DIM), value, torch.ones(DIM))


def inputs(y: torch.Tensor, target: torch.Tensor | None = None, encoder: EncoderStatistics | None = None) -> LossInputs:
    """A batch without anchors whose predictions are `y` in both heads."""
    target = y if target is None else target
    nothing = torch.zeros(0, dtype=torch.int64)
    no_rows = (y[:0], y[:0], nothing, nothing, y[:0], nothing, nothing)
    return LossInputs(y, y, target, *no_rows, reach=64, encoder=encoder or statistics_of(target), config=LossConfig())


# Regression and norm


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_regression_is_zero_in_the_targets_direction_whatever_the_length(scale: float) -> None:
    target = normal(30, DIM)
    assert regression(inputs(scale * target, target)).item() == pytest.approx(0, abs=1e-6)
    assert regression(inputs(-scale * target, target)).item() == pytest.approx(2, abs=1e-6)


def test_regression_is_one_minus_the_mean_cosine() -> None:
    y, target = normal(7, DIM), normal(7, DIM, seed=1)
    cosines = [float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)) for a, b in zip(y, target, strict=True)]
    assert regression(inputs(y, target)).item() == pytest.approx(1 - np.mean(cosines), abs=1e-6)


def test_mse_is_the_squared_error_averaged_over_dimensions_so_that_unit_vectors_hardly_have_any() -> None:
    y, target = F.normalize(normal(9, 384), dim=-1), F.normalize(normal(9, 384, seed=1), dim=-1)
    assert mse(inputs(target, target)) == 0
    cosine = F.cosine_similarity(y, target, dim=-1)
    assert mse(inputs(y, target)).item() == pytest.approx((2 - 2 * cosine.mean().item()) / 384, rel=1e-5)


def test_the_norm_term_is_zero_at_the_targets_lengths_whatever_the_direction() -> None:
    target = 3 * normal(30, DIM)
    y = F.normalize(normal(30, DIM, seed=1), dim=-1) * target.norm(dim=-1, keepdim=True)
    assert norm(inputs(y, target, norm_of(10.0))).item() == pytest.approx(0, abs=1e-9)


@given(scale=st.floats(0, 5), unit=st.floats(0.1, 100))
@settings(max_examples=40, deadline=None)
def test_the_norm_term_is_a_squared_error_in_units_of_the_encoders_norm(scale: float, unit: float) -> None:
    target = F.normalize(normal(5, DIM), dim=-1) * unit
    assert norm(inputs(scale * target, target, norm_of(unit))).item() == pytest.approx((scale - 1) ** 2, abs=1e-4)


# Moments


def test_moments_are_zero_when_mean_and_deviation_match() -> None:
    vectors = normal(200, DIM) * torch.linspace(0.5, 2, DIM) + 3
    others = vectors[torch.randperm(200)]
    assert moments(inputs(others, encoder=statistics_of(vectors))).item() == pytest.approx(0, abs=1e-4)


def test_moments_are_one_when_shifted_by_a_deviation_and_one_when_collapsed_to_the_mean() -> None:
    vectors = normal(200, DIM)
    encoder = statistics_of(vectors)
    deviation = encoder.std.square().mean().sqrt()
    assert moments(inputs(vectors + deviation, encoder=encoder)).item() == pytest.approx(1, abs=0.01)
    assert moments(inputs(encoder.mean.expand(200, DIM), encoder=encoder)).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("scale", [0.03, 30.0])
def test_moments_mean_the_same_in_a_space_of_any_scale(scale: float) -> None:
    vectors, y = normal(200, DIM), 0.5 * normal(200, DIM, seed=1) + 0.2
    small = moments(inputs(y, encoder=statistics_of(vectors))).item()
    assert small > 0.1
    assert moments(inputs(scale * y, encoder=statistics_of(scale * vectors))).item() == pytest.approx(small, rel=1e-4)


# Variance


def test_the_hinge_is_zero_at_the_targets_spread_and_above_it() -> None:
    targets = normal(300, DIM) + 1
    encoder = statistics_of(targets)
    unit = F.normalize(targets, dim=-1)
    assert variance(inputs(unit, encoder=encoder)).item() == pytest.approx(0, abs=5e-3)
    assert variance(inputs(unit.mean(0) + 1.5 * (unit - unit.mean(0)), encoder=encoder)).item() == 0


def test_the_hinge_is_one_for_a_constant_and_half_at_half_the_spread() -> None:
    targets = normal(300, DIM) + 1
    encoder = statistics_of(targets)
    unit = F.normalize(targets, dim=-1)
    assert variance(inputs(unit.mean(0).expand(300, DIM), encoder=encoder)).item() == pytest.approx(1, abs=1e-6)
    assert variance(inputs(unit.mean(0) + 0.5 * (unit - unit.mean(0)), encoder=encoder)).item() == pytest.approx(0.5, abs=5e-3)


def test_the_hinge_ignores_dimensions_in_which_the_targets_hardly_vary() -> None:
    encoder = statistics_of(normal(300, DIM))
    dead = replace(encoder, unit_std=torch.where(torch.arange(DIM) == 2, 1e-4, encoder.unit_std))
    y = F.normalize(normal(300, DIM), dim=-1).clone()
    y[:, 2] = 0.5
    assert variance(inputs(y, encoder=dead)).item() == pytest.approx(0, abs=5e-3)
    assert variance(inputs(y, encoder=encoder)).item() == pytest.approx(1 / DIM, abs=5e-3)


# InfoNCE


def test_infonce_is_the_hand_computed_cross_entropy() -> None:
    anchors, targets, extra = (F.normalize(normal(n, DIM, seed=s), dim=-1) for n, s in ((3, 0), (3, 1), (2, 2)))
    forbidden = np.zeros((3, 5), bool)
    forbidden[0, 2] = forbidden[1, 3] = forbidden[2, 0] = True
    logit = np.where(forbidden, -np.inf, (anchors @ torch.cat([targets, extra]).T).numpy() / 0.2)
    forward = np.mean([np.log(np.exp(logit[i]).sum()) - logit[i, i] for i in range(3)])
    found = contrastive_loss(anchors, targets, extra, torch.from_numpy(forbidden), 0.2)
    assert found.item() == pytest.approx(forward, abs=1e-5)


def test_infonce_is_zero_for_an_oracle_large_for_its_opposite_and_log_n_for_a_constant() -> None:
    targets = torch.eye(DIM)
    nothing, none = torch.zeros(0, DIM), torch.zeros(DIM, DIM, dtype=torch.bool)
    assert contrastive_loss(targets, targets, nothing, none, 0.05).item() < 1e-6
    assert contrastive_loss(-targets, targets, nothing, none, 0.05).item() > 20
    constant = torch.full((DIM, DIM), 1 / math.sqrt(DIM))
    assert contrastive_loss(constant, targets, nothing, none, 0.05).item() == pytest.approx(math.log(DIM), abs=1e-5)


def test_a_forbidden_negative_costs_nothing_and_an_allowed_one_does() -> None:
    y = F.normalize(normal(4, DIM), dim=-1)
    targets = F.normalize(y + 0.3 * normal(4, DIM, seed=1), dim=-1)
    without = contrastive_loss(y, targets, targets[:0], torch.zeros(4, 4, dtype=torch.bool), 0.1)
    allowed = torch.zeros(4, 8, dtype=torch.bool)
    forbidden = allowed.clone()
    forbidden[:, 4:] = True
    assert contrastive_loss(y, targets, y, forbidden, 0.1).item() == pytest.approx(without.item(), abs=1e-6)
    assert contrastive_loss(y, targets, y, allowed, 0.1).item() > without.item() + 0.1


def test_anchors_whose_every_negative_is_forbidden_give_zero_and_finite_gradients() -> None:
    y = F.normalize(normal(3, DIM), dim=-1).requires_grad_()
    loss = contrastive_loss(y, F.normalize(normal(3, DIM, seed=1), dim=-1), torch.zeros(0, DIM), ~torch.eye(3, dtype=torch.bool), 0.07)
    loss.backward()
    assert loss.item() == 0
    assert y.grad is not None and bool(y.grad.isfinite().all())


# Forbidden negatives


def on_circle(degrees: list[int]) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angle.cos(), angle.sin()], 1)


# cos(18.19 degrees) = .95: multiples of 12 are near at 0 and 12 and far from 24 on.
chunk = st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 29))


@settings(max_examples=150, deadline=None)
@given(anchors=st.lists(chunk, min_size=1, max_size=7), extra=st.lists(chunk, max_size=5), reach=st.integers(1, 8))
def test_exactly_the_own_context_and_near_duplicates_are_forbidden(anchors: list, extra: list, reach: int) -> None:
    documents, rows, angles = (list(column) for column in zip(*anchors, strict=True))
    extra_docs, extra_rows, extra_angles = (list(column) for column in zip(*extra, strict=True)) if extra else ([], [], [])
    targets = on_circle([12 * a for a in angles])
    batch = replace(
        inputs(targets),
        anchor_target=targets,
        anchor_row=torch.tensor(rows),
        anchor_doc=torch.tensor(documents),
        negative=on_circle([12 * a for a in extra_angles]).reshape(-1, 2),
        negative_row=torch.tensor(extra_rows, dtype=torch.int64),
        negative_doc=torch.tensor(extra_docs, dtype=torch.int64),
        reach=reach,
    )
    found = forbidden_negatives(batch)
    assert found.shape == (len(anchors), len(anchors) + len(extra))
    candidates = [(d, r + 1, a) for d, r, a in anchors] + extra
    for i, (document, row, angle) in enumerate(anchors):
        for j, (other_document, other_row, other_angle) in enumerate(candidates):
            context = other_document == document and row - reach < other_row <= row
            apart = abs(angle - other_angle) % 30
            duplicate = min(apart, 30 - apart) <= 1
            assert found[i, j].item() == (i != j and (context or duplicate))


# All terms of a batch


def batch(stretches: int = 4, length: int = 10, seed: int = 0) -> tuple[Prediction, BatchVectors, EncoderStatistics]:
    vectors = normal(stretches, length + 1, DIM, seed=seed) + 0.5
    rows = torch.arange(stretches * (length + 1)).view(stretches, length + 1)
    docs = torch.arange(stretches)[:, None].expand(stretches, length)
    valid = torch.ones(stretches, length, dtype=torch.bool)
    valid[0, 7:] = False
    anchors = valid & (torch.rand(stretches, length, generator=torch.Generator().manual_seed(seed)) < 0.6)
    given = BatchVectors(
        context=vectors[:, :-1],
        targets=vectors[:, 1:],
        valid=valid,
        anchors=anchors,
        anchor_rows=rows[:, :-1][anchors],
        anchor_docs=docs[anchors],
        negatives=normal(6, DIM, seed=seed + 1),
        negative_rows=torch.full((6,), 10_000),
        negative_docs=torch.arange(6) % stretches,
    )
    prediction = Prediction(normal(stretches, length, DIM, seed=9), F.normalize(normal(stretches, length, DIM, seed=8), dim=-1))
    return prediction, given, statistics_of(vectors.flatten(0, 1))


def weights(**changes: float) -> LossConfig:
    return LossConfig(**{name: 0.5 for name in TERMS} | changes)


def test_every_weight_of_the_configuration_has_its_term() -> None:
    terms = loss_terms(*batch(), weights())
    assert set(terms) == set(TERMS)
    assert all(term.isfinite() and term > 0 for term in terms.values())


@pytest.mark.parametrize("name", TERMS)
def test_a_weight_of_zero_drops_its_term_and_no_other(name: str) -> None:
    everything = loss_terms(*batch(), weights())
    found = loss_terms(*batch(), weights(**{name: 0.0}))
    assert set(found) == set(TERMS) - {name}
    assert all(torch.equal(found[other], everything[other]) for other in found)


def test_weights_multiply_their_own_terms() -> None:
    config = LossConfig(regression=2, norm=3, infonce=5, moments=7, variance=11, mse=13)
    terms = loss_terms(*batch(), config)
    found = weighted(terms, config)
    for name, weight in {"regression": 2, "norm": 3, "infonce": 5, "moments": 7, "variance": 11, "mse": 13}.items():
        assert found[name].item() == pytest.approx(weight * terms[name].item(), rel=1e-6)


def test_positions_after_a_documents_end_change_no_term_and_get_no_gradient() -> None:
    prediction, vectors, encoder = batch()
    expected = loss_terms(prediction, vectors, encoder, weights())
    outside = ~vectors.valid[..., None]
    spoiled = Prediction(*(value.masked_fill(outside, 100.0).requires_grad_() for value in prediction))
    garbled = replace(vectors, targets=vectors.targets.masked_fill(outside, -100.0))
    found = loss_terms(spoiled, garbled, encoder, weights())
    assert all(torch.equal(found[name], expected[name]) for name in TERMS)
    torch.stack(list(found.values())).sum().backward()
    for value in spoiled:
        assert value.grad is not None
        assert not value.grad[~vectors.valid].any()
        assert value.grad[vectors.valid].any(-1).all()


def test_each_term_trains_only_its_own_head() -> None:
    for name in TERMS:
        prediction, vectors, encoder = batch()
        prediction = Prediction(*(value.requires_grad_() for value in prediction))
        loss_terms(prediction, vectors, encoder, weights())[name].backward()
        trained = "cosine" if name in ("infonce", "variance") else "decoder"
        for head in ("decoder", "cosine"):
            assert (getattr(prediction, head).grad is not None) == (head == trained)


def test_infonce_reads_the_anchors_alone_and_no_targets_length() -> None:
    prediction, vectors, encoder = batch()
    expected = loss_terms(prediction, vectors, encoder, weights())["infonce"]
    lengths = torch.linspace(0.2, 5, vectors.targets[..., :1].numel()).view_as(vectors.targets[..., :1])
    stretched = replace(vectors, targets=lengths * vectors.targets, negatives=torch.linspace(0.3, 4, 6)[:, None] * vectors.negatives)
    spoiled = prediction._replace(cosine=prediction.cosine.masked_fill(~vectors.anchors[..., None], 3.0))
    found = loss_terms(spoiled, stretched, encoder, weights())["infonce"]
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(("back", "masked"), [(0, True), (EXCLUDED_BEFORE - 1, True), (79, True), (80, False), (-2, False)])
def test_a_negative_the_stretch_has_read_is_masked_however_long_the_stretch(back: int, masked: bool) -> None:
    prediction, vectors, encoder = batch(stretches=1, length=80)
    anchors = torch.zeros(1, 80, dtype=torch.bool)
    anchors[0, 79] = True
    one = replace(
        vectors,
        anchors=anchors,
        anchor_rows=torch.tensor([1079]),
        anchor_docs=torch.tensor([5]),
        negatives=vectors.negatives[:1],
        negative_rows=torch.tensor([1079 - back]),
        negative_docs=torch.tensor([5]),
    )
    loss = loss_terms(prediction, one, encoder, weights())["infonce"].item()
    assert (loss == 0) == masked


def test_a_batch_of_one_valid_position_gives_finite_terms_and_gradients() -> None:
    prediction, vectors, encoder = batch(stretches=1, length=4)
    valid = torch.tensor([[True, False, False, False]])
    one = replace(vectors, valid=valid, anchors=valid, anchor_rows=torch.tensor([0]), anchor_docs=torch.tensor([0]))
    prediction = Prediction(*(value.requires_grad_() for value in prediction))
    terms = loss_terms(prediction, one, encoder, weights())
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(value.grad is not None and bool(value.grad.isfinite().all()) for value in prediction)
