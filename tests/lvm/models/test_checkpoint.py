"""A checkpoint gives back the model that was saved, or refuses by name."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lvm.atomic_io import sha256_file
from lvm.config import ARCHITECTURES, ModelConfig, TrainConfig
from lvm.data.dataset import Dataset
from lvm.data.statistics import training_mean
from lvm.errors import GateRefused, InputError
from lvm.evaluation.evaluate import SKILLS, evaluate_checkpoint
from lvm.models import build_predictor
from lvm.models.baselines import Baselines
from lvm.models.checkpoint import (
    FILES,
    FORMAT,
    GOLDEN_INPUTS,
    TrainingRecord,
    golden_predictions,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from lvm.models.ood import OutOfDistribution
from tests.support.edited import edit_json
from tests.support.swapped_model import Backwards
from tests.support.trainings import trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Path:
    """A trained LSTM; read-only."""
    return trained(dataset)


@pytest.fixture()
def copy(model: Path, tmp_path: Path) -> Path:
    """Its checkpoint, to be damaged."""
    return Path(shutil.copytree(model, tmp_path / "copy", ignore=shutil.ignore_patterns("training")))


def edit_config(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit_json(path / "config.json", change)


def vouch(path: Path) -> None:
    """Write the digests of the files as they are now into the configuration, as a careless tool would."""
    edit_config(path, lambda values: values["files"].update({name: sha256_file(path / name) for name in FILES}))


def refusal(path: Path) -> str:
    with pytest.raises((InputError, GateRefused)) as caught:
        load_checkpoint(path, CPU)
    return str(caught.value)


def record(dataset: Dataset, config: ModelConfig) -> TrainingRecord:
    """Of a training without a history."""
    return TrainingRecord(TrainConfig(model=config), dataset.manifest.recipe, dataset.manifest.digest, {}, [], [])


def untrained(path: Path, model: Path, dataset: Dataset, arch: str) -> nn.Module:
    """Write a checkpoint of random weights of any architecture; returns the model that was saved."""
    torch.manual_seed(3)
    config = ModelConfig(arch=arch, dim=dataset.dim, width=64)
    mean = torch.randn(dataset.dim)
    baselines = Baselines.load(model / "baselines.safetensors", mean)
    predictor = build_predictor(config, mean, torch.rand(dataset.dim) + 0.5, baselines)
    for head in (predictor.decoder_residual, predictor.cosine_residual):
        nn.init.normal_(head.fc2.weight, std=0.1)
    golden = load_file(model / "golden.safetensors")["inputs"]
    ood = OutOfDistribution.load(model / "out_of_distribution.safetensors", predictor.mean)
    save_checkpoint(path, predictor, golden, baselines, ood, record(dataset, config), "card")
    return predictor


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_reloaded_model_predicts_what_the_saved_one_did(dataset: Dataset, model: Path, tmp_path: Path, arch: str) -> None:
    saved = untrained(tmp_path / "model", model, dataset, arch).eval()
    loaded = load_checkpoint(tmp_path / "model", CPU)
    assert type(loaded.model) is type(saved) and type(loaded.model.trunk) is type(saved.trunk) is ARCHITECTURES[arch]
    assert loaded.parity <= 1e-6
    context = torch.randn(5, 20, dataset.dim)
    with torch.inference_mode():
        for before, after in zip(saved(context), loaded.model(context), strict=True):
            assert torch.equal(before, after)
    assert not loaded.model.training
    assert loaded.config.arch == loaded.config.train.model.arch == arch
    assert loaded.config.parameters == sum(p.numel() for p in saved.parameters())


def test_weights_normalisation_and_golden_inputs_survive_bit_for_bit(dataset: Dataset, model: Path) -> None:
    checkpoint = load_checkpoint(model, CPU)
    stored = load_file(model / "model.safetensors")
    assert set(stored) == set(checkpoint.model.state_dict())
    assert all(torch.equal(value, stored[name]) for name, value in checkpoint.model.state_dict().items())
    train = torch.from_numpy(dataset.vectors[dataset.rows("train")])
    torch.testing.assert_close(stored["mean"], train.mean(0))
    torch.testing.assert_close(stored["std"], train.std(0, correction=0))
    golden = load_file(model / "golden.safetensors")
    assert golden["inputs"].shape == (GOLDEN_INPUTS, checkpoint.config.train.context_length, dataset.dim)
    rows = torch.from_numpy(dataset.vectors[dataset.rows("val")])
    assert torch.cdist(golden["inputs"].flatten(0, 1), rows).amin(1).max() < 1e-3, "golden inputs are real text"
    y_dec, y_cos = golden_predictions(checkpoint.model, golden["inputs"])
    torch.testing.assert_close(y_dec, golden["y_dec"])
    torch.testing.assert_close(y_cos.norm(dim=1), torch.ones(GOLDEN_INPUTS))


def test_golden_predictions_are_made_without_dropout_and_in_exact_float32(dataset: Dataset, model: Path, tmp_path: Path) -> None:
    saved = untrained(tmp_path / "model", model, dataset, "gru").train()
    inputs = load_file(model / "golden.safetensors")["inputs"]
    before = torch.backends.cuda.matmul.allow_tf32
    seen = []
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        saved.register_forward_hook(lambda *_: seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)))
        first, second = golden_predictions(saved, inputs), golden_predictions(saved.train(), inputs)
        assert torch.backends.cuda.matmul.allow_tf32, "the setting is put back"
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert seen == [(False, False)] * 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_training_mean_is_stored_once_and_all_parts_get_it_from_the_model(dataset: Dataset, model: Path) -> None:
    checkpoint = load_checkpoint(model, CPU)
    mean = training_mean(dataset)
    assert torch.equal(checkpoint.model.mean, mean)
    assert torch.equal(checkpoint.baselines.mean, mean) and torch.equal(checkpoint.ood.mean, mean)
    for name in ("baselines.safetensors", "out_of_distribution.safetensors"):
        assert not any(torch.equal(value, mean) for value in load_file(model / name).values()), name


def test_config_of_a_trained_model_reads_back_equal_with_its_provenance(dataset: Dataset, model: Path) -> None:
    config = read_config(model)
    assert config == load_checkpoint(model, CPU).config
    assert config.recipe == dataset.manifest.recipe
    assert config.dataset_digest == dataset.manifest.digest
    assert config.best["epoch"] in [epoch["epoch"] for epoch in config.history] and len(config.history) == config.train.epochs


def test_every_file_is_hashed_and_nothing_is_pickled(model: Path) -> None:
    config = read_config(model)
    assert set(config.files) == set(FILES)
    assert all(digest == sha256_file(model / name) for name, digest in config.files.items())
    assert {file.name for file in model.iterdir() if file.is_file()} == {*FILES, "config.json"}
    for file in model.rglob("*"):
        assert file.suffix in {".safetensors", ".json", ".jsonl", ".md", ""}, file
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as tensors:
                assert list(tensors.keys())


def test_baselines_survive_the_round_trip(dataset: Dataset, model: Path) -> None:
    (fitted,) = dataset.path.glob("derived/*-baselines-3-10000-*.safetensors")
    written, kept = Baselines.load(fitted, training_mean(dataset)), load_checkpoint(model, CPU).baselines
    assert (kept.context_length, kept.names, kept.choices()) == (written.context_length, written.names, written.choices())
    context = torch.from_numpy(np.array(dataset.vectors[:30]).reshape(5, 6, -1))
    before, after = written.predict(context), kept.predict(context)
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_card_tells_an_under_trained_model_from_a_finished_one(dataset: Dataset, model: Path) -> None:
    card = (model / "card.md").read_text(encoding="utf-8")
    config = read_config(model)
    assert f"{dataset.manifest.documents['train']} documents, {dataset.manifest.chunks['train']} chunks" in card
    assert dataset.manifest.recipe.id in card and dataset.manifest.digest[:12] in card
    assert f"{len(config.history)} of at most 3" in card
    for epoch in config.history:
        kept = " (kept)" if epoch["epoch"] == config.best["epoch"] else ""
        assert f"| {int(epoch['epoch'])}{kept} | {epoch['val/cosine']:.4f} |" in card
    assert card.count("(kept)") == 1
    found = evaluate_checkpoint(dataset, load_checkpoint(model, CPU), "val")
    for metric in SKILLS:
        assert f"| {metric} | {found.skill(metric)} over {found.best_baseline(metric)} |" in card, "each with its interval"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "one byte", "missing"])
def test_damaged_file_is_refused_by_name(copy: Path, name: str, damage: str) -> None:
    file = copy / name
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        os.truncate(file, file.stat().st_size - 1)
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    found = refusal(copy)
    assert str(file) in found and "missing, truncated or altered" in found and "train the model again" in found


@pytest.mark.parametrize("name", FILES)
def test_file_that_the_configuration_does_not_vouch_for_is_refused(copy: Path, name: str) -> None:
    edit_config(copy, lambda values: values["files"].pop(name))
    assert f"{copy / name} is missing, truncated or altered" in refusal(copy)


@pytest.mark.parametrize("weight", ["decoder_lags.weight", "cosine_lags.weight", "decoder_norm.bias", "mean"])
@pytest.mark.parametrize("value", [0.7, float("nan")])
def test_one_changed_weight_is_caught_by_the_golden_predictions_alone(copy: Path, weight: str, value: float) -> None:
    weights = load_file(copy / "model.safetensors")
    weights[weight][0] += value
    save_file(weights, copy / "model.safetensors")
    vouch(copy)
    assert "golden predictions differ" in refusal(copy)


@pytest.mark.parametrize("output", ["y_dec", "y_cos"])
@pytest.mark.parametrize("value", [2e-4, float("nan")])
def test_other_golden_predictions_are_refused(copy: Path, output: str, value: float) -> None:
    golden = load_file(copy / "golden.safetensors")
    golden[output][5, 7] += value
    save_file(golden, copy / "golden.safetensors")
    vouch(copy)
    assert "golden predictions differ" in refusal(copy)


def test_difference_within_the_tolerance_is_accepted_and_reported(copy: Path) -> None:
    golden = load_file(copy / "golden.safetensors")
    golden["y_dec"][5, 7] += 5e-5
    save_file(golden, copy / "golden.safetensors")
    vouch(copy)
    assert load_checkpoint(copy, CPU).parity == pytest.approx(5e-5, rel=0.05)
    with pytest.raises(GateRefused, match="golden predictions differ by 5e-05, over 1e-05"):
        load_checkpoint(copy, CPU, tolerance=1e-5)


def test_another_forward_pass_under_the_same_names_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES._entries, "lstm", Backwards)
    assert "golden predictions differ" in refusal(copy)


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "lstm"])
def test_weights_declared_as_another_architecture_are_refused(copy: Path, arch: str) -> None:
    edit_config(copy, lambda values: (values.update(arch=arch), values["train"]["model"].update(arch=arch)))
    found = refusal(copy)
    assert f"the weights do not fit architecture '{arch}'" in found
    assert str(copy) in found


def test_weights_declared_as_the_broken_original_are_refused(copy: Path) -> None:
    edit_config(copy, lambda values: values["train"]["model"].update(heads="legacy"))
    assert "the weights do not fit architecture 'lstm'" in refusal(copy)


def test_two_names_of_one_architecture_must_agree(copy: Path) -> None:
    edit_config(copy, lambda values: values.update(arch="gru"))
    assert "field 'arch' says gru, 'train.model.arch' lstm" in refusal(copy)


def test_folder_without_a_config_is_not_a_model(copy: Path, tmp_path: Path) -> None:
    (copy / "config.json").unlink()
    for path in (copy, tmp_path / "nowhere"):
        found = refusal(path)
        assert str(path) in found and "no config.json" in found and "--resume" in found


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "42"])
def test_config_that_is_not_a_json_object_is_refused_by_name(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    assert str(copy / "config.json") in refusal(copy)


@pytest.mark.parametrize("found", [0, FORMAT + 1, "1", None])
def test_checkpoint_of_another_format_is_refused(copy: Path, found: Any) -> None:
    edit_config(copy, lambda values: values.update(format=found))
    assert f"field 'format' must be {FORMAT}" in refusal(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(extra=1), "unknown field 'extra'"),
        (lambda values: values["train"]["model"].update(tails=4), "unknown field 'train.model.tails'"),
        (lambda values: values.pop("recipe"), "field 'recipe': Field required"),
        (lambda values: values["train"].update(epochs=0), "field 'train.epochs'"),
        (lambda values: values["train"]["model"].update(arch="rnn"), "field 'train.model.arch'"),
    ],
)
def test_wrong_field_of_the_config_is_refused_by_name(copy: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit_config(copy, change)
    assert message in refusal(copy)


def test_checkpoint_that_is_being_replaced_is_never_taken_for_whole(dataset: Dataset, model: Path, copy: Path) -> None:
    class Stop(Exception):
        pass

    class Unsaved(Baselines):
        def save(self, path: Path) -> None:
            raise Stop

    predictor = build_predictor(ModelConfig(arch="lstm", dim=dataset.dim, width=64), torch.zeros(dataset.dim), torch.ones(dataset.dim))
    golden = load_file(copy / "golden.safetensors")["inputs"]
    ood = OutOfDistribution.load(copy / "out_of_distribution.safetensors", predictor.mean)
    unsaved = Unsaved(**vars(Baselines.load(copy / "baselines.safetensors", predictor.mean)))
    with pytest.raises(Stop):
        save_checkpoint(copy, predictor, golden, unsaved, ood, record(dataset, predictor.config), "card")
    assert "no config.json" in refusal(copy)
