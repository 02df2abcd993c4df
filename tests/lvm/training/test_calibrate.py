"""Shares, weights and whitening are the best on the given windows, and the model is left with them."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ModelConfig
from lvm.data.dataset import Dataset
from lvm.data.windows import contexts, make_windows
from lvm.evaluation.evaluate import Reference, score, score_baselines
from lvm.models import Ensemble, Predictor, build_predictor
from lvm.models.baselines import fit_baselines
from lvm.models.baselines.neighbours import WEIGHTS
from lvm.models.baselines.whitening import POWERS, whitening_covariance
from lvm.training.calibrate import SHARES, calibrate

CPU, LENGTH = torch.device("cpu"), 3


@pytest.fixture(scope="module")
def reference(dataset: Dataset) -> Reference:
    fitted = fit_baselines(dataset, LENGTH, 300, CPU)
    return score_baselines(dataset, make_windows(dataset, "val", LENGTH, 300, CPU), fitted, CPU)


def awake(dataset: Dataset, heads: str, members: int = 1) -> Predictor:
    """A model whose trunk adds noise, and a little of what helps."""
    torch.manual_seed(0)
    config = ModelConfig(arch="lstm", dim=dataset.dim, width=64, heads=heads, members=members)  # type: ignore[arg-type]
    fitted = fit_baselines(dataset, LENGTH, 300, CPU)
    model = build_predictor(config, fitted.mean, torch.full_like(fitted.mean, 0.05), fitted).eval()
    for name, weight in model.named_parameters():
        if "fc2.weight" in name:
            nn.init.normal_(weight, std=0.02)
    return model


def chosen_by(model: Predictor, dataset: Dataset, reference: Reference) -> dict[str, float]:
    parts = contexts(dataset.vectors, reference.windows.targets, LENGTH, CPU)
    return calibrate(model, parts, reference, whitening_covariance(dataset, False))


@torch.inference_mode()
def qualities(model: Predictor, dataset: Dataset, reference: Reference) -> tuple[float, float]:
    """Cosine of y_dec, and the sum of the retrieval metrics of y_cos, from a forward pass."""
    (context,) = contexts(dataset.vectors, reference.windows.targets, LENGTH, CPU, 10_000)
    y_dec, y_cos = model(context, return_both=True)
    ranked = score(y_dec, y_cos, reference.targets, reference.pool, reference.windows)
    cosine = float(F.cosine_similarity(y_dec, reference.targets, dim=-1).mean())
    return cosine, sum(float(ranked.quantity(name).mean()) for name in ("recall_at_1", "recall_at_5", "mrr"))


def test_no_other_share_or_weight_is_better(dataset: Dataset, reference: Reference) -> None:
    model = awake(dataset, "closed_forms")
    before = qualities(model, dataset, reference)
    found = chosen_by(model, dataset, reference)
    assert set(found) == {"decoder_share", "cosine_share", "successor_weight", "whitening_power"} and found["whitening_power"] in POWERS
    best = qualities(model, dataset, reference)
    assert best[0] >= before[0] and best[1] >= before[1]
    assert [float(model.decoder_share), float(model.successor_weight)] == pytest.approx([found["decoder_share"], found["successor_weight"]])
    for share, weight in product(SHARES[::3], WEIGHTS[::3]):
        model.decoder_share.fill_(share)
        model.successor_weight.fill_(weight)
        assert qualities(model, dataset, reference)[0] <= best[0] + 1e-6
    for share in SHARES:
        model.cosine_share.fill_(share)
        assert qualities(model, dataset, reference)[1] <= best[1] + 1e-6


def test_heads_that_start_from_lag_weights_have_shares_alone(dataset: Dataset, reference: Reference) -> None:
    model = awake(dataset, "residual")
    assert set(chosen_by(model, dataset, reference)) == {"decoder_share", "cosine_share"}


def test_all_members_of_an_ensemble_get_the_numbers_that_serve_them_together(dataset: Dataset, reference: Reference) -> None:
    model = awake(dataset, "closed_forms", members=2)
    assert isinstance(model, Ensemble)
    found = chosen_by(model, dataset, reference)
    for member in model.members:
        assert float(member.decoder_share) == pytest.approx(found["decoder_share"])  # type: ignore[arg-type]
    first = qualities(model, dataset, reference)
    assert chosen_by(model, dataset, reference) == found
    assert qualities(model, dataset, reference) == pytest.approx(first)
