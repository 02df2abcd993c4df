"""`lvm explain` shows what a model uses, as tables and JSON; a model that reads backwards is evaluated so and used for nothing else."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.errors import InputError
from lvm.evaluation.evaluate import SKILLS, evaluate_checkpoint, predict
from lvm.evaluation.explain import explain, require_mirror
from lvm.models.baselines import fit_baselines
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from lvm.serving.loaded_model import LoadedModel
from lvm.training.trainer import train
from tests.support.commands import lvm as run
from tests.support.commands import refusal
from tests.support.edited import edit_json
from tests.support.trainings import tiny, trained

CPU = torch.device("cpu")
ABLATIONS = {"shuffle", "reverse", "cross_document", "last_alone", "lag 1", "lag 2", "lag 3"}


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Path:
    """A model trained for a few seconds."""
    return trained(dataset)


@pytest.fixture(scope="module")
def backward(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model on documents read backwards."""
    out = tmp_path_factory.mktemp("backward") / "model"
    train(tiny(dataset, "reverse=true"), dataset, out, CPU)
    return out


@pytest.fixture(scope="module")
def checkpoints(model: Path, backward: Path) -> tuple[Checkpoint, Checkpoint]:
    """Both."""
    return load_checkpoint(model, CPU), load_checkpoint(backward, CPU)


# A model that reads backwards


def test_it_learns_from_the_end_of_documents_and_keeps_baselines_of_that_direction(
    dataset: Dataset, checkpoints: tuple[Checkpoint, Checkpoint]
) -> None:
    turned = checkpoints[1]
    ridge, forward = turned.baselines.parameters["ridge"], checkpoints[0].baselines.parameters["ridge"]
    fitted = fit_baselines(dataset.directed(True), 3, 10_000, CPU).parameters["ridge"]
    assert torch.equal(ridge["coefficients"], fitted["coefficients"])
    assert not torch.equal(ridge["coefficients"], forward["coefficients"])
    assert turned.config.dataset_digest == dataset.manifest.digest
    assert "from end to beginning" in (turned.path / "card.md").read_text()


def test_it_is_evaluated_on_contexts_read_backwards_whoever_turned_them(
    dataset: Dataset, checkpoints: tuple[Checkpoint, Checkpoint]
) -> None:
    forward, turned = checkpoints
    plain, given = evaluate_checkpoint(dataset, turned, "val"), evaluate_checkpoint(dataset.directed(True), turned, "val")
    assert plain.metrics() == given.metrics()
    targets = {(dataset.n_rows - 1 - row) for row in plain.windows.targets}
    assert targets <= set(dataset.rows("val")) and targets != set(evaluate_checkpoint(dataset, forward, "val").windows.targets)
    assert evaluate_checkpoint(dataset.directed(True), forward, "val").metrics() == evaluate_checkpoint(dataset, forward, "val").metrics()
    # The direction is the checkpoint's: other weights in the same checkpoint read the same contexts.
    other, mirrored = evaluate_checkpoint(dataset, replace(turned, model=forward.model), "val"), dataset.directed(True)
    y_dec, _ = predict(forward.model, mirrored, other.windows, CPU)
    truth = torch.from_numpy(mirrored.vectors[other.windows.targets])
    np.testing.assert_allclose(other.model.cosine, F.cosine_similarity(y_dec, truth, dim=-1).numpy(), atol=1e-6)
    assert abs(other.model.cosine.mean() - evaluate_checkpoint(dataset, forward, "val").model.cosine.mean()) > 1e-4


def test_it_is_neither_served_nor_continued_from(dataset: Dataset, backward: Path, tmp_path: Path) -> None:
    message = "field 'train.reverse' is true, this model reads documents backwards: give one trained without it"
    with pytest.raises(InputError, match=message):
        LoadedModel(backward, CPU)
    (tmp_path / "context.txt").write_text("Fellow citizens.\nWe meet again.")
    assert message in refusal(run("generate", "--text-file", tmp_path / "context.txt", "--model", backward))


def test_lvm_diagnose_judges_it_in_its_direction(dataset: Dataset, backward: Path, checkpoints: tuple[Checkpoint, Checkpoint]) -> None:
    found = run("diagnose", dataset.path, "--model", backward, "--json")
    gates = {gate["name"]: gate for gate in found.json["gates"]}
    found_here = evaluate_checkpoint(dataset, checkpoints[1], "val")
    for skill in map(found_here.skill, SKILLS):
        assert str(skill) in gates["baselines"]["reason"]
    assert gates["chunk_order"]["passed"], "the data are checked as they are stored"


# lvm explain


def test_json_holds_every_ablation_accuracy_bound_and_both_directions(
    dataset: Dataset, model: Path, backward: Path, checkpoints: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    command = ("explain", dataset.path, "--model", model, "--backward", backward, "--split", "val", "--figures", tmp_path, "--json")
    found = run(*command).json
    assert set(found["ablations"]) == ABLATIONS
    for each in found["ablations"].values():
        assert {metric: set(drop) for metric, drop in each.items()} == {
            metric: {"model", "baseline", "excess"} for metric in ("cosine", "recall_at_5")
        }
    for split_off, source in ((found, checkpoints[0]), (found["backward"], checkpoints[1])):
        skill = evaluate_checkpoint(dataset, source, "val").skill("cosine")
        assert split_off["skill"]["cosine"] == {"value": skill.value, "low": skill.low, "high": skill.high}
    assert (found["reverse"], found["backward"]["reverse"]) == (False, True)
    assert found["contrast"]["1"]["chance"] == 0.5 and found["contrast"]["9"]["chance"] == 0.1
    info = found["information"]
    assert info["last_chunk"].startswith("last chunk: ")
    assert info["ceiling"] == pytest.approx(np.log(info["candidates"]))
    assert all(critic["bound"]["value"] < info["ceiling"] for critic in info["critics"].values())
    assert set(info["gains"]) == {name for name in info["critics"] if name.startswith("whole context: ")}
    assert (tmp_path / "lags.png").read_bytes()[:4] == b"\x89PNG"


def test_a_trained_model_uses_more_than_its_last_chunk(dataset: Dataset, checkpoints: tuple[Checkpoint, Checkpoint]) -> None:
    found = explain(dataset, checkpoints[0], "val")
    for name in ("shuffle", "reverse", "cross_document", "last_alone", "lag 1", "lag 2"):
        assert found["ablations"][name]["cosine"]["model"]["low"] > 0, name
    assert found["contrast"]["1"]["accuracy"]["model"]["low"] > 0.5
    assert found["information"]["gains"]["whole context: model"]["low"] > 0
    assert found == explain(dataset, checkpoints[0], "val"), "and says the same again"


def test_tables_say_what_an_estimate_is_and_ask_for_the_other_direction(dataset: Dataset, model: Path) -> None:
    found = run("explain", dataset.path, "--model", model, "--split", "val")
    assert found.code == 0
    text = " ".join(found.out.split())
    for part in ("cross_document", "distractors", "an estimate, not a bound", "Skill by direction", "from beginning to end"):
        assert part in text
    assert "give --backward, the same model trained with --set reverse=true" in found.out


def test_too_few_documents_are_said_instead_of_an_interval(dataset: Dataset, model: Path) -> None:
    found = run("explain", dataset.path, "--model", model, "--json").json
    assert found["split"] == "test" and found["documents"] < 5
    assert found["ablations"]["shuffle"]["cosine"]["model"]["low"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_another_dataset_is_refused(dataset: Dataset, checkpoints: tuple[Checkpoint, Checkpoint]) -> None:
    foreign = replace(dataset, manifest=dataset.manifest.model_copy(update={"key": "foreign"}))
    with pytest.raises(InputError, match=r"is not the one that .* was trained on"):
        explain(foreign, checkpoints[0], "val")


def test_only_the_same_model_of_the_other_direction_is_set_beside_it(
    dataset: Dataset, model: Path, backward: Path, checkpoints: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    forward, turned = checkpoints
    require_mirror(forward, turned)
    command = ("explain", dataset.path, "--split", "val")
    assert "train it with --set reverse=true" in refusal(run(*command, "--model", model, "--backward", model))
    assert "this model reads documents backwards" in refusal(run(*command, "--model", backward, "--backward", backward))
    config = turned.config
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 7, "epochs": 9})})
    with pytest.raises(InputError, match=r"field\(s\) epochs, seed of 'train' are not those of"):
        require_mirror(forward, replace(turned, config=other))
    with pytest.raises(InputError, match="field 'dataset_digest' is not that of"):
        require_mirror(forward, replace(turned, config=config.model_copy(update={"dataset_digest": "0" * 64})))


def test_a_model_from_before_these_settings_still_loads(dataset: Dataset, model: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(model, tmp_path / "old"))

    def forget(values: dict[str, Any]) -> None:
        del values["train"]["reverse"], values["train"]["loss"]["mse"], values["train"]["model"]["heads"]

    edit_json(old / "config.json", forget)
    loaded = load_checkpoint(old, CPU)
    assert loaded.config == load_checkpoint(model, CPU).config and loaded.parity == 0
