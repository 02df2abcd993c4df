"""Fitted baselines are what their names say, read no more than their context, and come back from their file as they were."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lvm.config import BASELINES
from lvm.data.dataset import Dataset
from lvm.data.windows import contexts, make_windows
from lvm.errors import InputError
from lvm.evaluation.evaluate import score_baselines
from lvm.models.baselines import Baselines, FittingData, Parameters, fit_baselines
from lvm.models.baselines.fitted import number
from tests.support.planted import DIM, grown, planted

CPU = torch.device("cpu")


def by_hand() -> Baselines:
    """Context 3. Along both axes ridge doubles the latest centred chunk and subtracts the one before it; its rest is half the oldest.
    The only neighbour's successor is (10, 20). Whitening swaps the dimensions."""
    parameters: dict[str, Parameters] = {
        "ewma": {"decay": number(0.5)},
        "centred_ewma": {"decay": number(0.5)},
        "ridge": {
            "axes": torch.eye(2),
            "axis_weights": torch.tensor([[0.0, 0.0], [-1.0, -1.0], [2.0, 2.0]]),
            "weights": torch.tensor([[1.0, 0.0, 0.0]]),
            "coefficients": 0.5 * torch.eye(2),
        },
        "ridge_knn": {
            "keys": torch.tensor([[1.0, 0.0]]).half(),
            "successors": torch.tensor([[10.0, 20.0]]).half(),
            "weights": torch.tensor([0.0, 0.0, 1.0]),
            "temperature": number(0.1),
            "weight": number(0.2),
        },
        "whitened_ewma": {"weights": torch.tensor([1.0, 2.0, 4.0]) / 7, "matrix": torch.eye(2).flip(0)},
        "whitened_ridge": {"matrix": torch.eye(2).flip(0), "ridge_weight": number(0.5), "hub": torch.tensor([0.25, -0.5])},
    }
    names = ("mean_vector", "copy_last", "ewma", "centred_ewma", "ridge", "ridge_knn", "whitened_ewma", "whitened_ridge")
    return Baselines(3, torch.tensor([1.0, 2.0]), names, parameters)


def test_every_baseline_is_what_its_name_says() -> None:
    context = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [2.0, 4.0], [5.0, 1.0]]])  # of four chunks the last three are read
    centred_ewma = np.array([0 + 2 + 16, -2 + 4 - 4]) / 7
    ridge = np.array([8 - 1 + 0, -2 - 2 - 1])
    query = (centred_ewma + 0.5 * ridge)[::-1]
    expected = {
        "mean_vector": [1, 2],
        "copy_last": [5, 1],
        "ewma": [(1 + 4 + 20) / 7, (0 + 8 + 4) / 7],
        "centred_ewma": centred_ewma,
        "ridge": np.add([1, 2], ridge),
        "ridge_knn": np.add([3, 6], ridge),
        "whitened_ewma": centred_ewma[::-1],
        "whitened_ridge": query / np.linalg.norm(query) - [0.25, -0.5],
    }
    found = by_hand().predict(context)
    assert list(found) == list(expected) == list(BASELINES)
    for name, value in expected.items():
        assert found[name].shape == (1, 2)
        assert found[name][0].tolist() == pytest.approx(list(value), abs=1e-5), name


def test_baselines_read_no_more_than_their_context_length() -> None:
    context = torch.randn(5, 3, 2)
    longer = torch.cat([torch.full((5, 4, 2), 1e6), context], 1)
    found, again = by_hand().predict(context), by_hand().predict(longer)
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_all_baselines_are_finite_at_every_window(linear: Dataset, fitted: Baselines) -> None:
    for split in ("train", "val", "test"):
        for context in contexts(linear.vectors, make_windows(linear, split, 4, 1000, CPU).targets, 4, CPU):
            assert all(value.isfinite().all() for value in fitted.predict(context).values())


def test_the_mean_is_that_of_the_training_chunks_alone(linear: Dataset, fitted: Baselines) -> None:
    train, everything = linear.vectors[linear.rows("train")], linear.vectors
    np.testing.assert_allclose(fitted.mean.numpy(), train.mean(0, dtype=np.float64), atol=1e-6)
    assert np.abs(fitted.mean.numpy() - everything.mean(0, dtype=np.float64)).max() > 1e-4


# Corpora on which nothing much can be fitted


def vectors_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A document of 12 chunks."""
    x = rng.normal(size=(12, DIM))
    if kind == "constant dimension":
        x[:, 2] = 3.0
    if kind == "singular covariance":
        x[:, 3:] = x[:, :3]
    return x + 1


@pytest.mark.parametrize("kind", ["few contexts", "constant dimension", "singular covariance"])
def test_degenerate_training_documents_give_finite_baselines(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    made = planted(tmp_path, [vectors_of(kind, rng) for _ in range(8)])
    found = fit_baselines(made, 4, 100, CPU)
    index = found.parameters["ridge_knn"]["keys"]
    assert 0 < len(index) < 64, "fewer training contexts than neighbours"
    for context in contexts(made.vectors, make_windows(made, "val", 4, 100, CPU).targets, 4, CPU):
        assert all(value.isfinite().all() for value in found.predict(context).values())


def test_training_documents_without_a_full_context_are_refused_with_the_remedy(tmp_path: Path) -> None:
    made = planted(tmp_path, [vectors_of("few contexts", np.random.default_rng(0)) for _ in range(8)])
    with pytest.raises(
        InputError, match="no document with more than 12 chunks: give more or longer documents, or a smaller context_length"
    ):
        fit_baselines(made, 12, 100, CPU)


# Files


def test_saved_baselines_load_as_they_were(fitted: Baselines, tmp_path: Path) -> None:
    fitted.save(tmp_path / "baselines.safetensors")
    found = Baselines.load(tmp_path / "baselines.safetensors", fitted.mean)
    assert (found.context_length, found.names, found.choices()) == (fitted.context_length, fitted.names, fitted.choices())
    assert torch.equal(found.mean, fitted.mean)
    for name, own in fitted.parameters.items():
        assert all(torch.equal(found.parameters[name][key], value) for key, value in own.items())
    assert "mean" not in " ".join(load_file(tmp_path / "baselines.safetensors")), "the model has the mean"


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_file_that_is_missing_or_not_ours_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "baselines.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"baselines\.safetensors is not a baselines file"):
        Baselines.load(path, torch.zeros(2))


def test_a_second_fit_reads_the_first_and_other_validation_windows_fit_anew(linear: Dataset, fitted: Baselines) -> None:
    def files() -> dict[str, int]:
        found = (linear.path / "derived").iterdir()
        return {f.name: f.stat().st_mtime_ns for f in found if "baselines-4" in f.name and f.suffix == ".safetensors"}

    before = files()
    assert fit_baselines(linear, 4, 1000, CPU).choices() == fitted.choices()
    assert files() == before
    fit_baselines(linear, 4, 100, CPU)  # choices are made on these windows
    assert len(files()) == len(before) + 1


# Further baselines


def test_a_registered_function_is_a_baseline_like_the_others(linear: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(data: FittingData) -> Parameters:
        return {"scale": number(0.5 * float(data.fitted["ewma"]["decay"] > 0))}

    def halved(context_BTD: torch.Tensor, mean_D: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        return float(parameters["scale"]) * context_BTD[:, -1]

    with monkeypatch.context() as patch:
        patch.setitem(BASELINES._entries, "halved", halved)
        patch.setitem(BASELINES._about, "halved", {"fit": fit})
        fitted = fit_baselines(linear, 4, 300, CPU)
        fitted.save(tmp_path / "baselines.safetensors")
        found = Baselines.load(tmp_path / "baselines.safetensors", fitted.mean)
        context = torch.randn(5, 4, DIM)
        assert list(found.predict(context)) == list(BASELINES) and found.choices()["halved.scale"] == 0.5
        assert torch.equal(found.predict(context)["halved"], 0.5 * context[:, -1])
    with pytest.raises(InputError, match="baseline 'halved' is not known: there are mean_vector, "):
        found.predict(context)
    assert "halved" not in fit_baselines(linear, 4, 300, CPU).names, "what was fitted with it is fitted again"


def test_each_law_has_the_baseline_that_was_made_for_it(linear: Dataset, fitted: Baselines, tmp_path: Path) -> None:
    """A linear law is ridge's; where successors follow no linear law of their contexts, the neighbours know them."""
    scores = score_baselines(linear, make_windows(linear, "test", 4, 1000, CPU), fitted, CPU).scores
    cosine = {name: float(found.cosine.mean()) for name, found in scores.items()}
    assert min(cosine["ridge"], cosine["ridge_knn"]) > 0.02 + max(v for name, v in cosine.items() if not name.startswith("ridge"))

    # Each of 24 places in six dimensions leads to another: more than a linear map can hold.
    rng = np.random.default_rng(0)
    places, after = rng.normal(size=(24, DIM)), rng.permutation(24)

    def walk(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        place = int(np.argmin(np.linalg.norm(places - x[-1], axis=1)))
        return places[after[place] if rng.random() < 0.7 else rng.integers(24)] + 0.1 * rng.normal(size=DIM)

    made = planted(tmp_path, grown(walk))
    found = fit_baselines(made, 1, 1000, CPU)
    scores = score_baselines(made, make_windows(made, "test", 1, 1000, CPU), found, CPU).scores
    assert scores["ridge_knn"].cosine.mean() > scores["ridge"].cosine.mean() + 0.02
