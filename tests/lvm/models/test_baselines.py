"""The baselines are what their names say, and the fitted ones find what the data were made from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from lvm.config import BASELINES
from lvm.data.dataset import Dataset
from lvm.data.windows import contexts, make_windows, retrieval_ranks, unit
from lvm.errors import InputError
from lvm.evaluation.evaluate import score_baselines
from lvm.models import baselines as module
from lvm.models.baselines import (
    DECAYS,
    PENALTIES,
    Baselines,
    FittingData,
    Parameters,
    features,
    fit_baselines,
    weighted_mean,
)
from tests.support.planted import DIM, grown, planted

MEAN = np.linspace(-2, 2, DIM)
ROTATION = np.linalg.qr(np.random.default_rng(5).normal(size=(DIM, DIM)))[0]
FIRST, SECOND = 0.6 * ROTATION, 0.3 * np.roll(np.eye(DIM), 1, axis=0)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """x(t+1) = FIRST x(t) + SECOND x(t-1) + noise, around MEAN."""
    documents = grown(lambda x, rng: FIRST @ x[-1] + SECOND @ x[-2] + 0.5 * rng.normal(size=DIM))
    return planted(tmp_path_factory.mktemp("linear"), [MEAN + document for document in documents])


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Few chunks and a weak law, which a ridge without penalty overfits."""
    documents = grown(lambda x, rng: 0.3 * ROTATION @ x[-1] + rng.normal(size=DIM), seed=1)
    return planted(tmp_path_factory.mktemp("noisy"), [document[:9] + 0.5 for document in documents[:30]])


@pytest.fixture(scope="module")
def fitted(linear: Dataset) -> Baselines:
    return fit_baselines(linear, 4, 1000, torch.device("cpu"))


def coefficients(found: Baselines) -> torch.Tensor:
    """Those of ridge regression."""
    return found.parameters["ridge"]["coefficients"]


# By hand


def by_hand() -> Baselines:
    """Context 3; ridge doubles the latest centred chunk and subtracts the one before it."""
    half = {"decay": torch.tensor(0.5, dtype=torch.float64)}
    ridge = {"coefficients": torch.cat([2 * torch.eye(2), -torch.eye(2)]), "penalty": torch.tensor(0.1, dtype=torch.float64)}
    names = ("mean_vector", "copy_last", "context_mean", "ewma_cosine", "centred_ewma_recall", "ridge", "centred_ridge")
    return Baselines(3, torch.tensor([1.0, 2.0]), names, {"ewma_cosine": half, "centred_ewma_recall": half, "ridge": ridge})


def test_every_baseline_is_what_its_name_says() -> None:
    context = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [2.0, 4.0], [5.0, 1.0]]])
    expected = {
        "mean_vector": [1, 2],
        "copy_last": [5, 1],
        "context_mean": [8 / 3, 5 / 3],
        "ewma_cosine": [(1 + 4 + 20) / 7, (0 + 8 + 4) / 7],
        "centred_ewma_recall": [(0 + 2 + 16) / 7, (-2 + 4 - 4) / 7],
        "ridge": [1 + 8 - 1, 2 - 2 - 2],
        "centred_ridge": [8 - 1, -2 - 2],
    }
    found = by_hand().predict(context)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == (1, 2)
        assert found[name][0].tolist() == pytest.approx(value, abs=1e-5), name


def test_baselines_read_no_more_than_their_context_length() -> None:
    context = torch.randn(5, 3, 2)
    longer = torch.cat([torch.full((5, 4, 2), 1e6), context], 1)
    found, again = by_hand().predict(context), by_hand().predict(longer)
    assert all(torch.equal(found[name], again[name]) for name in found)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.tuples(st.just(2), st.integers(1, 9), st.just(3)), elements=st.floats(-5, 5)), st.floats(0.05, 1))
def test_the_weighted_mean_weighs_by_powers_of_the_decay(context: np.ndarray, decay: float) -> None:
    weights = [decay**lag for lag in reversed(range(context.shape[1]))]
    found = weighted_mean(torch.from_numpy(context), decay)
    np.testing.assert_allclose(found.numpy(), np.average(context, axis=1, weights=weights), atol=1e-9)


def test_features_put_the_latest_chunk_first() -> None:
    context = torch.arange(12.0).view(2, 3, 2)
    assert features(context, torch.tensor([1.0, 0.0])).tolist() == [[3, 5, 1, 3, -1, 1], [9, 11, 7, 9, 5, 7]]


# Ridge


def ridge_problem(dataset: Dataset, lags: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred features and targets of every training chunk that has `lags` before it, and the mean."""
    mean = dataset.vectors[dataset.rows("train")].mean(0, dtype=np.float64)
    x, y = [], []
    for doc in dataset.docs("train"):
        own = dataset.vectors[dataset.starts[doc] : dataset.starts[doc + 1]] - mean
        for t in range(lags, len(own)):
            x.append(own[t - lags : t][::-1].ravel())
            y.append(own[t])
    return np.array(x), np.array(y), mean


@pytest.mark.parametrize("kind", ["linear", "noisy"])
def test_ridge_is_ridge_and_its_penalty_the_best_on_validation(kind: str, request: pytest.FixtureRequest, cpu: torch.device) -> None:
    made: Dataset = request.getfixturevalue(kind)
    fitted = fit_baselines(made, 4, 1000, cpu)
    x, y, mean = ridge_problem(made, 4)
    scale = (x**2).sum(0).mean()
    targets = make_windows(made, "val", 4, 1000, cpu).targets
    contexts_val = np.concatenate([made.vectors[targets - lag] - mean for lag in range(1, 5)], 1)
    scores, solutions = {}, {}
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty * scale, fit_intercept=False).fit(x, y)
        predicted = torch.from_numpy(model.predict(contexts_val) + mean)
        truth = torch.from_numpy(made.vectors[targets].astype(np.float64))
        scores[penalty] = float(F.cosine_similarity(predicted, truth).mean())
        solutions[penalty] = model.coef_.T
    penalty = fitted.choices()["ridge.penalty"]
    assert penalty == max(scores, key=scores.__getitem__)
    assert (penalty > min(PENALTIES)) == (kind == "noisy")  # the smallest always fits train best
    np.testing.assert_allclose(coefficients(fitted).numpy(), solutions[penalty], atol=1e-4)


def test_ridge_finds_the_law_the_data_were_made_by(fitted: Baselines) -> None:
    found = coefficients(fitted).numpy().reshape(4, DIM, DIM).transpose(0, 2, 1)
    for lag, truth in enumerate((FIRST, SECOND, np.zeros((DIM, DIM)), np.zeros((DIM, DIM)))):
        np.testing.assert_allclose(found[lag], truth, atol=0.1)


def test_ridge_beats_every_other_baseline_on_a_linear_law(linear: Dataset, fitted: Baselines, cpu: torch.device) -> None:
    scores = score_baselines(linear, make_windows(linear, "test", 4, 1000, cpu), fitted, cpu).scores
    cosine = {name: float(found.cosine.mean()) for name, found in scores.items()}
    assert cosine["ridge"] > 0.02 + max(value for name, value in cosine.items() if name != "ridge")


@pytest.mark.parametrize(("length", "lags"), [(1, 1), (5, 5), (12, 8)])
def test_ridge_uses_at_most_eight_lags(linear: Dataset, cpu: torch.device, length: int, lags: int) -> None:
    found = fit_baselines(linear, length, 200, cpu)
    assert coefficients(found).shape == (lags * DIM, DIM)
    (context,) = contexts(linear.vectors, make_windows(linear, "test", length, 50, cpu).targets, length, cpu)
    expected = found.mean + features(context[:, -lags:], found.mean) @ coefficients(found)
    torch.testing.assert_close(found.predict(context)["ridge"], expected)


# Fitting


def test_the_mean_is_that_of_the_training_chunks_alone(linear: Dataset, fitted: Baselines) -> None:
    train, everything = linear.vectors[linear.rows("train")], linear.vectors
    np.testing.assert_allclose(fitted.mean.numpy(), train.mean(0, dtype=np.float64), atol=1e-6)
    assert np.abs(fitted.mean.numpy() - everything.mean(0, dtype=np.float64)).max() > 1e-4


@pytest.mark.parametrize("truth", [0.5, 0.8])
def test_the_decay_the_data_were_made_by_is_found(tmp_path: Path, cpu: torch.device, truth: float) -> None:
    weights = truth ** np.arange(5, -1, -1)
    documents = grown(lambda x, rng: np.average(x[-6:], axis=0, weights=weights) + 0.3 * rng.normal(size=16), dim=16)
    found = fit_baselines(planted(tmp_path, documents), 6, 200, cpu)
    assert found.choices()["ewma_cosine.decay"] == pytest.approx(truth, abs=0.051)


def test_each_decay_is_the_best_on_train_for_its_own_metric(linear: Dataset, fitted: Baselines, cpu: torch.device) -> None:
    windows = make_windows(linear, "train", 4, module.FIT_WINDOWS, cpu)
    context = torch.cat(list(contexts(linear.vectors, windows.targets, 4, cpu)))
    targets, pool = torch.from_numpy(linear.vectors[windows.targets]), unit(linear.vectors[windows.pool], cpu)

    def cosine(predicted: torch.Tensor) -> float:
        return float(F.cosine_similarity(predicted, targets).mean())

    def recall(predicted: torch.Tensor) -> float:
        return float((retrieval_ranks(predicted, pool, windows.answer, windows.excluded) <= 5).mean())

    expected = {}
    for prefix, shift in (("", 0.0), ("centred_", fitted.mean)):
        for name, metric in (("cosine", cosine), ("recall", recall)):
            expected[f"{prefix}ewma_{name}.decay"] = max(DECAYS, key=lambda d, m=metric, s=shift: m(weighted_mean(context - s, d)))
    chosen = fitted.choices()
    assert {name: chosen[name] for name in expected} == expected and set(chosen) == {*expected, "ridge.penalty"}
    assert len(set(expected.values())) > 1  # else a mix-up of metrics would not show


def test_all_baselines_are_finite_at_every_window(linear: Dataset, fitted: Baselines, cpu: torch.device) -> None:
    for split in ("train", "val", "test"):
        for context in contexts(linear.vectors, make_windows(linear, split, 4, 1000, cpu).targets, 4, cpu):
            assert all(value.isfinite().all() for value in fitted.predict(context).values())


# Files


def test_saved_baselines_load_as_they_were(fitted: Baselines, tmp_path: Path) -> None:
    fitted.save(tmp_path / "baselines.safetensors")
    found = Baselines.load(tmp_path / "baselines.safetensors", fitted.mean)
    assert (found.context_length, found.names, found.choices()) == (fitted.context_length, fitted.names, fitted.choices())
    assert torch.equal(found.mean, fitted.mean) and torch.equal(coefficients(found), coefficients(fitted))
    assert "mean" not in " ".join(load_file(tmp_path / "baselines.safetensors")), "the model has the mean"


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_file_that_is_missing_or_not_ours_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "baselines.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"baselines\.safetensors is not a baselines file"):
        Baselines.load(path, torch.zeros(2))


def test_a_second_fit_reads_the_first_and_other_validation_windows_fit_anew(linear: Dataset, fitted: Baselines, cpu: torch.device) -> None:
    def files() -> dict[str, int]:
        return {
            f.name: f.stat().st_mtime_ns
            for f in (linear.path / "derived").iterdir()
            if "baselines-4" in f.name and f.suffix == ".safetensors"
        }

    before = files()
    again = fit_baselines(linear, 4, 1000, cpu)
    assert files() == before
    assert torch.equal(coefficients(again), coefficients(fitted)) and again.choices() == fitted.choices()
    fit_baselines(linear, 4, 100, cpu)  # the penalty is chosen on these windows
    assert len(files()) == len(before) + 1


# Further baselines


def test_a_registered_function_is_a_baseline_like_the_others(linear: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(data: FittingData) -> Parameters:
        return {"scale": torch.tensor(0.5, dtype=torch.float64)}

    def halved(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        return float(parameters["scale"]) * context_BTD[:, -1]

    with monkeypatch.context() as patch:
        patch.setitem(BASELINES._entries, "halved", halved)
        patch.setitem(BASELINES._about, "halved", {"fit": fit})
        fitted = fit_baselines(linear, 4, 300, torch.device("cpu"))
        fitted.save(tmp_path / "baselines.safetensors")
        found = Baselines.load(tmp_path / "baselines.safetensors", fitted.mean)
        context = torch.randn(5, 4, DIM)
        assert list(found.predict(context)) == list(BASELINES) and found.choices()["halved.scale"] == 0.5
        assert torch.equal(found.predict(context)["halved"], 0.5 * context[:, -1])
    with pytest.raises(InputError, match="baseline 'halved' is not known: there are mean_vector, "):
        found.predict(context)
    assert "halved" not in fit_baselines(linear, 4, 300, torch.device("cpu")).names, "what was fitted with it is fitted again"
