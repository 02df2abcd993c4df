"""A healthy night passes every gate; each poisoned one fails the gate that it was made for."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.errors import InputError
from lvm.evaluation.evaluate import SKILLS, evaluate_checkpoint
from lvm.gates.evaluate_night import NightEvaluation, evaluate_night
from lvm.gates.nightly import OWN_NUMBERS
from lvm.models.checkpoint import Checkpoint
from lvm.reports.nightly import NightEntry, night_figure, night_table, trend_figure, trend_table
from tests.support.nights import addresses, champion, extracted, rot13

DOCUMENTS = 12
LIMITS = GateThresholds()


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset) -> Checkpoint:
    return champion(dataset)


@pytest.fixture(scope="module")
def recorded(dataset: Dataset, checkpoint: Checkpoint) -> dict[str, float]:
    found = evaluate_checkpoint(dataset, checkpoint, "test")
    return {name: interval.value for name, interval in found.metrics().items() if name in OWN_NUMBERS}


@pytest.fixture(scope="module")
def fresh(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Addresses that the champion never saw."""
    return extracted(addresses(DOCUMENTS), tmp_path_factory.mktemp("fresh"), encoder)


@pytest.fixture(scope="module")
def oracle(checkpoint, dataset, fresh, recorded, encoder) -> NightEvaluation:
    return evaluate_night(checkpoint, dataset, fresh, recorded, encoder, LIMITS)


def failed(found: NightEvaluation) -> set[str]:
    return {gate.name for gate in found.gates if not gate.passed}


def test_new_documents_of_the_same_kind_pass_every_gate(oracle: NightEvaluation) -> None:
    assert failed(oracle) == set()
    names = {"reload_parity", "encoder_unchanged", "own_numbers", "chunk_order", "duplicates", "readable", "embedding_drift", "night_skill"}
    names |= {*(f"skill_drift_{metric}" for metric in SKILLS), "moment_matching", "collapse"}
    assert {gate.name for gate in oracle.gates} == names
    assert len(set(oracle.night.windows.docs)) == DOCUMENTS


def test_night_and_own_test_documents_are_compared_at_one_pool_size(oracle: NightEvaluation, dataset: Dataset, fresh: Dataset) -> None:
    assert len(oracle.night.windows.pool) == len(oracle.own.windows.pool) <= min(fresh.n_rows, len(dataset.rows("test")))


@pytest.mark.slow
def test_another_language_fails_embedding_drift_and_the_nights_skill(checkpoint, dataset, recorded, encoder, tmp_path) -> None:
    found = evaluate_night(checkpoint, dataset, extracted(addresses(DOCUMENTS, rot13), tmp_path, encoder), recorded, encoder, LIMITS)
    # Not `skill_drift_...`: a model of a few seconds has next to no skill to lose.
    assert failed(found) >= {"embedding_drift", "night_skill"}
    assert not failed(found) & {"reload_parity", "encoder_unchanged", "own_numbers"}, "the champion is not to blame"


def test_lost_order_of_chunks_fails_chunk_order(checkpoint, dataset, fresh, recorded, encoder) -> None:
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(np.arange(a, b)) for a, b in zip(fresh.starts[:-1], fresh.starts[1:], strict=True)])
    found = evaluate_night(checkpoint, dataset, replace(fresh, vectors=np.array(fresh.vectors)[order]), recorded, encoder, LIMITS)
    assert "chunk_order" in failed(found)


def test_champion_whose_weights_were_perturbed_fails_its_own_numbers_and_the_baselines(
    checkpoint, dataset, fresh, recorded, encoder
) -> None:
    noisy = deepcopy(checkpoint.model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in noisy.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    found = evaluate_night(replace(checkpoint, model=noisy), dataset, fresh, recorded, encoder, LIMITS)
    assert failed(found) >= {"own_numbers", "night_skill"}


class Drifted:
    """The encoder after an upgrade that changed its vectors and not its weights."""

    def __init__(self, encoder: Encoder) -> None:
        self.recipe, self.tokenizer, self.dtype, self.group, self._real = (
            encoder.recipe,
            encoder.tokenizer,
            encoder.dtype,
            encoder.group,
            encoder,
        )

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self._real.encode([text[: len(text) // 2 + 1] for text in texts])


def test_encoder_that_gives_other_vectors_than_those_stored_fails(checkpoint, dataset, recorded, encoder) -> None:
    found = evaluate_night(checkpoint, dataset, None, recorded, Drifted(encoder), LIMITS)
    assert failed(found) == {"encoder_unchanged"}


def test_night_without_new_documents_evaluates_the_own_test_documents_and_claims_nothing_of_drift(
    checkpoint, dataset, recorded, encoder
) -> None:
    found = evaluate_night(checkpoint, dataset, None, recorded, encoder, LIMITS)
    assert failed(found) == set() and found.night is found.own
    assert found.skills == {} and found.embeddings is None
    assert not [gate for gate in found.gates if "drift" in gate.name]
    assert found.summary()["night"] == evaluate_checkpoint(dataset, checkpoint, "test").summary()


def test_too_few_new_documents_are_refused(checkpoint, dataset, recorded, encoder, tmp_path) -> None:
    with pytest.raises(InputError, match="4 new documents can be scored, too few to tell a change from chance: give 5 or more"):
        evaluate_night(checkpoint, dataset, extracted(addresses(4), tmp_path, encoder), recorded, encoder, LIMITS)


# Tables and figures


def test_table_sets_the_night_beside_the_own_test_documents_and_the_record(oracle: NightEvaluation, recorded: dict[str, float]) -> None:
    rows = {row[0]: row[1:] for row in night_table(oracle.summary(), recorded).rows}
    for metric in SKILLS:
        night, own, difference, then = rows[f"skill_{metric}"]
        assert night.startswith(f"{oracle.night.skill(metric).value:+.4f}") and own.startswith(f"{oracle.own.skill(metric).value:+.4f}")
        assert difference.startswith(f"{oracle.skills[metric].difference.value:+.4f}") and then == f"{recorded[f'skill_{metric}']:.4f}"


def test_figure_of_a_night_shows_a_point_a_document(oracle: NightEvaluation) -> None:
    figure = night_figure(oracle)
    assert [axis.get_xlabel().split(";")[0] for axis in figure.axes] == [f"skill, {metric}" for metric in SKILLS]
    own, night = (len(points.get_offsets()) for points in figure.axes[0].collections)
    assert (own, night) == (len(set(oracle.own.windows.docs)), DOCUMENTS)


def test_trend_shows_every_night_in_the_colour_of_its_result_and_what_was_not_measured_not_at_all() -> None:
    names = [f"{side}/skill_{metric}" for side in ("night", "own") for metric in SKILLS] + ["drift/embedding"]
    metrics = {name + end: value for name in names for end, value in (("", 0.01), ("_low", 0.0), ("_high", 0.02))}
    without = {name: value for name, value in metrics.items() if "drift" not in name}
    nights = [
        NightEntry("2026-01-01", "pass", "1", metrics),
        NightEntry("2026-01-02", "fail", "1", metrics),
        NightEntry("2026-01-04", "warn", "1", metrics),
        NightEntry("2026-01-05", "pass", "2", without),
    ]
    figure = trend_figure(nights, LIMITS)
    points = [[line for line in axis.lines if line.get_marker() == "o"] for axis in figure.axes]
    assert [len(found) for found in points] == [4, 4, 4, 4, 3]
    colours = [line.get_color() for line in points[0]]
    assert len(set(colours)) == 3 and colours[0] == colours[3], "neither a breach nor a warning looks like a pass"
    rows = trend_table(nights).rows
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("2026-01-05", "pass", "2"),
        ("2026-01-04", "WARN", "1"),
        ("2026-01-02", "BREACH", "1"),
        ("2026-01-01", "pass", "1"),
    ]
    assert rows[0][7] == "" and rows[1][3:] == ["+0.0100 [+0.0000, +0.0200]"] * 5
