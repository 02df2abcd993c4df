"""The broken original, trained on real text beside its repair, is told apart by the gates."""

import pytest

from lvm.config import train_config
from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import Evaluation, evaluate_checkpoint
from lvm.gates.model import model_gates
from lvm.gates.result import GateResult
from lvm.models.checkpoint import load_checkpoint
from tests.support.trainings import CPU, TINY, train_once

Judged = tuple[Evaluation, dict[str, GateResult]]


@pytest.fixture(scope="module")
def judged(dataset: Dataset) -> dict[str, Judged]:
    """A GRU by either recipe, on the same data and with the same settings, and what the gates say."""
    out: dict[str, Judged] = {}
    for recipe in ("legacy", "residual"):
        checkpoint = load_checkpoint(
            train_once(dataset, train_config("gru", dataset.dim, TINY, None if recipe == "residual" else recipe)), CPU
        )
        found = evaluate_checkpoint(dataset, checkpoint, "val")
        out[recipe] = found, {gate.name: gate for gate in model_gates(checkpoint, found)}
    return out


@pytest.mark.parametrize("gate", ["mean_vector_baseline", "collapse"])
def test_the_broken_original_fails_to_beat_a_baseline_and_to_tell_chunks_apart(judged: dict[str, Judged], gate: str) -> None:
    result = judged["legacy"][1][gate]
    assert not result.passed, result.reason


def test_the_broken_original_fails_no_other_gate(judged: dict[str, Judged]) -> None:
    # Its deviation per dimension, averaged, is near ridge's, and a unit norm is MiniLM's own: moments alone do not see a collapse.
    # Its only loss term steers alone.
    assert {name for name, gate in judged["legacy"][1].items() if gate.passed} == {"reload_parity", "moment_matching", "loss_balance"}


@pytest.mark.parametrize("gate", ["moment_matching", "collapse", "reload_parity"])
def test_its_repair_passes_on_the_same_data(judged: dict[str, Judged], gate: str) -> None:
    result = judged["residual"][1][gate]
    assert result.passed, result.reason


def test_its_faults_show_in_a_report(judged: dict[str, Judged]) -> None:
    broken, repaired = judged["legacy"][0], judged["residual"][0]
    ours, theirs = broken.collapse(), repaired.collapse()
    assert ours["y_cos_pairwise_cosine"] > theirs["y_cos_pairwise_cosine"] + 0.5, "one vector for both purposes"
    assert ours["y_dec_effective_rank"] < theirs["y_dec_effective_rank"] / 2
    assert broken.skill("cosine").high < 0 < repaired.skill("cosine").value  # type: ignore[operator]
    assert broken.interval("recall_at_5").value < repaired.interval("recall_at_5").value / 2


def test_its_cosine_alone_would_have_passed_for_learning(judged: dict[str, Judged]) -> None:
    broken = judged["legacy"][0]
    assert broken.lead("cosine", "copy_last").value > 0, "better than the last chunk again, and so is the mean vector"
