"""A gate is one registered function: whatever runs, lists or logs gates follows from the registry, also for a gate from outside."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvm.config import GATES, GateThresholds
from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.gates.data import data_gates
from lvm.gates.model import model_gates
from lvm.gates.stages import stage_gates
from lvm.gates.training import CheckedTraining, early_gates
from lvm.models.checkpoint import load_checkpoint
from tests.support.commands import lvm
from tests.support.trainings import CPU, trained

LIMITS = GateThresholds()

PLUGIN = '''
from lvm.config import GATES
from lvm.gates.model import CheckedModel
from lvm.gates.result import GateResult, gate_result
from lvm.gates.training import CheckedTraining


def first_epoch(training: CheckedTraining) -> GateResult | None:
    return gate_result("few_parameters", training.epoch, 0, training.epoch > 0, "seen early", "none") if training.epoch < 2 else None


@GATES.register("few_parameters", stage="model", nightly=True, early=first_epoch)
def few_parameters(model: CheckedModel) -> GateResult:
    """The model is small, by a threshold of this module."""
    count = model.checkpoint.config.parameters
    return gate_result("few_parameters", count, 10, count > 10, f"{count} parameters", "lower model.width")


@GATES.register("long_documents", stage="data", nightly=True)
def long_documents(dataset, limits, device) -> GateResult:
    """Documents are long, and so by the thresholds that the caller gives."""
    return gate_result("long_documents", 1.0, limits.parity, False, "all are long", "")
'''


@pytest.fixture()
def plugin(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module with two gates, imported as LVM_PLUGINS would, and gone from the registry afterwards."""
    trained(dataset)  # before there is a gate that stops it
    GATES.names()
    (tmp_path / "few_parameters.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(GATES, "_entries", dict(GATES._entries))
    monkeypatch.setattr(GATES, "_about", dict(GATES._about))
    __import__("few_parameters")
    yield
    del sys.modules["few_parameters"]


def test_a_gate_from_outside_runs_after_the_packages_own(plugin: None, dataset: Dataset) -> None:
    checkpoint = load_checkpoint(trained(dataset), CPU)
    found = evaluate_checkpoint(dataset, checkpoint, "val")
    *_, last = model_gates(checkpoint, found, LIMITS)
    assert (last.name, last.passed, last.remedy) == ("few_parameters", False, "lower model.width")
    assert data_gates(dataset, GateThresholds(parity=0.5))[-1].threshold == 0.5
    assert list(stage_gates("model", nightly=True))[-1] == "few_parameters"
    config = checkpoint.config
    training = CheckedTraining(config.train.loss, 1, 10, config.gradient_shares, found, LIMITS)
    assert {gate.name: gate.passed for gate in early_gates(training)} == {"loss_balance": True, "few_parameters": False}


def test_a_gate_from_outside_is_in_the_commands_tables_and_objects(plugin: None, dataset: Dataset) -> None:
    model = trained(dataset)
    finished = lvm("diagnose", dataset.path, "--model", model, "--json")
    names = [gate["name"] for gate in finished.json["gates"]]
    assert (finished.code, names[5], names[-1]) == (3, "long_documents", "few_parameters")
    shown = lvm("validate", dataset.path, "--model", model, "--decoder", "none")
    assert shown.code == 0 and "few_parameters" in shown.out and "lower model.width" in shown.out


def test_a_gate_without_a_stage_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    GATES.names()
    monkeypatch.setattr(GATES, "_entries", GATES._entries | {"lost": len})
    monkeypatch.setattr(GATES, "_about", GATES._about | {"lost": {}})
    with pytest.raises(ValueError, match="gate 'lost' is registered without a stage"):
        stage_gates("data")


def test_thresholds_are_settings_of_the_commands(dataset: Dataset) -> None:
    strict = lvm("diagnose", dataset.path, "--set", "gates.chunk_order_warn=2", "--json")
    assert strict.code == 0 and [gate["name"] for gate in strict.json["gates"] if gate["severity"] == "warn"] == ["chunk_order"]
    validated = lvm(
        "validate", dataset.path, "--model", trained(dataset), "--set", "gates.norm_ratio=0.125", "--set", "gates.parity=0.5",
        "--decoder", "none", "--json",
    )  # fmt: skip
    thresholds = {gate["name"]: gate["threshold"] for gate in validated.json["gates"]}
    assert (thresholds["reload_parity"], list(thresholds)) == (0.5, list(stage_gates("model")))
    refused = lvm("validate", dataset.path, "--model", trained(dataset), "--set", "epochs=3")
    assert refused.code == 2 and "has no effect here" in refused.err


def test_every_gate_says_in_its_docstring_what_it_checks() -> None:
    assert [name for name, gate in GATES.items() if not (gate.__doc__ or "").strip()] == []
    assert [name for name, gate in GATES.items() if gate.__name__ != name] == []


def test_the_documentation_lists_the_registered_gates() -> None:
    page = (Path(__file__).parents[3] / "docs" / "gates.md").read_text(encoding="utf-8")
    sections = dict(part.split("\n", 1) for part in page.split("\n## ")[1:])
    for stage, title in (("data", "On the data"), ("model", "On a trained model"), ("nightly", "At night")):
        cells = [line.split("|")[1] for line in sections[title].splitlines() if line.startswith("| `")]
        assert {name for cell in cells for name in re.findall("`(.+?)`", cell)} == set(stage_gates(stage)), title
    (too,) = re.findall("(.+) run at night as well", sections["At night"])
    assert set(re.findall("`(.+?)`", too)) == {*stage_gates("data", nightly=True), *stage_gates("model", nightly=True)}
