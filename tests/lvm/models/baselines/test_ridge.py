"""The linear baseline: least squares of each axis on its own lags, ridge regression of the rest, penalties from validation."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.data.windows import contexts, make_windows
from lvm.models.baselines import Baselines, Parameters, fit_baselines
from lvm.models.baselines.fitting import fitting_data
from lvm.models.baselines.ridge import (
    AXIS_PENALTY,
    BACKWARD_SHARES,
    FEATURES,
    PENALTIES,
    FeatureSet,
    _axis_weights,
    _lag_moments,
    ridge_direction,
)
from lvm.models.weighted_sums import last_dimension_sums, last_sums
from tests.support.planted import DIM, grown, planted


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Few chunks and a weak law, which least squares without penalty overfit."""
    documents = grown(lambda x, rng: 0.3 * np.roll(x[-1], 2) + rng.normal(size=DIM), seed=1)
    return planted(tmp_path_factory.mktemp("noisy"), [document[:9] + 0.5 for document in documents[:30]])


def training_contexts(dataset: Dataset, length: int, backward_share: float) -> tuple[torch.Tensor, np.ndarray]:
    """Every full centred training context [N, T, D] and its target; of documents read backwards times the root of their share."""
    mean = dataset.vectors[dataset.rows("train")].mean(0, dtype=np.float64)
    x, y = [], []
    for doc in dataset.docs("train"):
        forward = dataset.vectors[dataset.starts[doc] : dataset.starts[doc + 1]] - mean
        for share, own in ((1.0, forward), (backward_share, forward[::-1])):
            for t in range(length, len(own) if share else 0):
                x.append(share**0.5 * own[t - length : t])
                y.append(share**0.5 * own[t])
    return torch.from_numpy(np.array(x, np.float32)), np.array(y)


def test_each_axis_is_regressed_on_its_own_lags(linear: Dataset, fitted: Baselines) -> None:
    found = fitted.parameters["ridge"]
    x, y = training_contexts(linear, 4, float(found["backward_share"]))
    train = linear.vectors[linear.rows("train")].astype(np.float64)
    axes = np.linalg.eigh(np.cov(train.T, bias=True))[1]
    np.testing.assert_allclose(np.abs(found["axes"].numpy().T @ axes), np.eye(DIM), atol=1e-3)
    turned, targets = x.numpy() @ found["axes"].numpy(), y @ found["axes"].numpy()
    for axis in range(DIM):
        lags = turned[:, :, axis]
        alpha = AXIS_PENALTY * (lags**2).sum(0).mean()
        expected = Ridge(alpha=alpha, fit_intercept=False).fit(lags, targets[:, axis]).coef_
        np.testing.assert_allclose(found["axis_weights"][:, axis].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("share", BACKWARD_SHARES)
def test_documents_read_from_their_end_count_by_their_share(linear: Dataset, cpu: torch.device, share: float) -> None:
    found = _axis_weights(_lag_moments(fitting_data(linear, 4, 1000, cpu)), share)
    x, y = training_contexts(linear, 4, share)
    for axis in range(DIM):
        lags = x[:, :, axis].numpy()
        alpha = AXIS_PENALTY * (lags**2).sum(0).mean()
        expected = Ridge(alpha=alpha, fit_intercept=False).fit(lags, y[:, axis]).coef_
        np.testing.assert_allclose(found[:, axis].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "noisy"])
def test_the_rest_is_ridge_and_its_penalties_are_the_best_on_validation(
    kind: str, request: pytest.FixtureRequest, cpu: torch.device
) -> None:
    made: Dataset = request.getfixturevalue(kind)
    fitted = fit_baselines(made, 4, 1000, cpu)
    found = fitted.parameters["ridge"]
    x, y = training_contexts(made, 4, float(found["backward_share"]))
    axes = found["axes"]
    features = last_sums(x @ axes, found["weights"]).flatten(1).numpy()
    rest = y @ axes.numpy() - last_dimension_sums(x @ axes, found["axis_weights"]).numpy()
    groups = {len(torch.cat(features.groups(4))): [len(group) for group in features.groups(4)] for features in FEATURES}[
        len(found["weights"])
    ]
    targets = make_windows(made, "val", 4, 1000, cpu).targets
    (context,) = contexts(made.vectors, targets, 4, cpu)
    seen, truth = context - fitted.mean, torch.from_numpy(made.vectors[targets])

    def solution(penalties: list[float]) -> np.ndarray:
        scale, first = np.ones(features.shape[1]), 0
        for size, penalty in zip(groups, penalties, strict=True):
            own = slice(first * DIM, (first + size) * DIM)
            scale[own] = np.sqrt(penalty * (features[:, own] ** 2).sum(0).mean())
            first += size
        # A penalty of 1 on features divided by the root of theirs.
        return Ridge(alpha=1, fit_intercept=False).fit(features / scale, rest).coef_.T / scale[:, None]

    def score(penalties: list[float]) -> float:
        parameters: Parameters = found | {"coefficients": torch.from_numpy(solution(penalties)).float()}
        return float(F.cosine_similarity(ridge_direction(seen, parameters) + fitted.mean, truth).mean())

    chosen = [fitted.choices()[f"ridge.penalty_{group}"] for group in range(len(groups))]
    np.testing.assert_allclose(found["coefficients"].numpy(), solution(chosen), atol=2e-4)
    best = score(chosen)
    for group in range(len(groups)):
        for penalty in PENALTIES:
            assert score([*chosen[:group], penalty, *chosen[group + 1 :]]) <= best + (1e-5 if len(groups) == 1 else 2e-4)
    assert (max(chosen) > min(PENALTIES)) or kind == "linear"  # the smallest always fits train best


def test_it_finds_the_law_the_data_were_made_by(fitted: Baselines, law: tuple[np.ndarray, np.ndarray]) -> None:
    x = torch.randn(50, 4, DIM)
    expected = x[:, -1].numpy() @ law[0].T + x[:, -2].numpy() @ law[1].T
    found = ridge_direction(x, fitted.parameters["ridge"]).numpy()
    assert np.linalg.norm(found - expected) < 0.25 * np.linalg.norm(expected)


def test_a_feature_set_has_a_group_of_lags_and_one_of_means() -> None:
    lags, means = FeatureSet(2, (0.5,)).groups(3)
    assert lags.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert means[0].tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    (only,) = FeatureSet(4, (0.5, 0.9)).groups(1)
    assert only.tolist() == [[1]], "of one chunk, lag and means are one feature"
