"""The broken original, trained on real text beside its repair, is told apart by the gates."""

import pytest

from lvm.config import GateThresholds, train_config
from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import Evaluation, evaluate_checkpoint
from lvm.gates.model import model_gates
from lvm.gates.result import GateResult
from lvm.models.checkpoint import load_checkpoint
from tests.support.trainings import CPU, TINY, train_once

Checked = tuple[Evaluation, dict[str, GateResult]]


@pytest.fixture(scope="module")
def checked(dataset: Dataset) -> dict[str, Checked]:
    """A GRU by either recipe, on the same data and with the same settings, and what the gates say."""
    out: dict[str, Checked] = {}
    for recipe in ("legacy", "residual"):
        checkpoint = load_checkpoint(
            train_once(dataset, train_config("gru", dataset.dim, TINY, None if recipe == "residual" else recipe)), CPU
        )
        found = evaluate_checkpoint(dataset, checkpoint, "val")
        out[recipe] = found, {gate.name: gate for gate in model_gates(checkpoint, found, GateThresholds())}
    return out


@pytest.mark.parametrize("gate", ["baselines", "collapse"])
def test_the_broken_original_fails_to_beat_a_baseline_and_to_tell_chunks_apart(checked: dict[str, Checked], gate: str) -> None:
    result = checked["legacy"][1][gate]
    assert not result.passed, result.reason


def test_the_broken_original_fails_no_other_gate(checked: dict[str, Checked]) -> None:
    # Its deviation per dimension, averaged, is near ridge's, and a unit norm is MiniLM's own: moments alone do not see a collapse.
    # Its only loss term steers alone.
    assert {name for name, gate in checked["legacy"][1].items() if gate.passed} == {"reload_parity", "moment_matching", "loss_balance"}


@pytest.mark.parametrize("gate", ["moment_matching", "collapse", "reload_parity"])
def test_its_repair_passes_on_the_same_data(checked: dict[str, Checked], gate: str) -> None:
    result = checked["residual"][1][gate]
    assert result.passed, result.reason


def test_its_faults_show_in_a_report(checked: dict[str, Checked]) -> None:
    broken, repaired = checked["legacy"][0], checked["residual"][0]
    ours, theirs = broken.collapse(), repaired.collapse()
    assert ours["y_cos_pairwise_cosine"] > theirs["y_cos_pairwise_cosine"] + 0.5, "one vector for both purposes"
    assert ours["y_dec_effective_rank"] < theirs["y_dec_effective_rank"] / 2
    assert broken.skill("cosine").high < 0  # type: ignore[operator]
    assert broken.skill("cosine").value < repaired.skill("cosine").value - 0.01
    assert broken.interval("recall_at_5").value < repaired.interval("recall_at_5").value / 2


def test_its_cosine_alone_would_have_passed_for_learning(checked: dict[str, Checked]) -> None:
    broken = checked["legacy"][0]
    assert broken.lead("cosine", "copy_last").value > 0, "better than the last chunk again, and so is the mean vector"
