"""The gates of a night fail for what is both certain and large, warn for what is one of the two, and see a NaN."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lvm.config import GateThresholds
from lvm.evaluation.drift import EmbeddingDrift, SkillDrift
from lvm.evaluation.evaluate import SKILLS, Evaluation
from lvm.evaluation.intervals import Interval
from lvm.gates.nightly import CheckedNight, embedding_drift, night_skill, own_numbers, skill_drift_cosine, skill_drift_recall_at_5
from lvm.gates.stages import stage_gates
from tests.support.evaluations import by_document

OWN = Interval(0.008, 0.005, 0.011)
NONE = float("nan")


def skill(difference: float, p: float, own: Interval = OWN, least_p: float = 0.0001) -> SkillDrift:
    return SkillDrift(Interval(own.value + difference, None, None), own, Interval(difference, None, None), p, least_p)


def night(limits: GateThresholds = GateThresholds(), **measured: Any) -> CheckedNight:
    """A night of which only the tests for drift are known."""
    nothing: dict[str, Any] = dict.fromkeys(("record", "encoder", "recorded", "repeated", "night", "skills", "embeddings"))
    return CheckedNight(**nothing | measured, limits=limits)


@pytest.mark.parametrize(
    ("found", "severity"),
    [
        (skill(0.001, 0.7), "ok"),
        (skill(-0.001, 0.02), "ok"),  # one night in fifty
        (skill(-0.001, 0.0001), "warn"),  # certain, and small
        (skill(-0.006, 0.01), "ok"),  # large, and uncertain
        (skill(-0.006, 0.0005), "ok"),  # certain for one test, not for one of four
        (skill(-0.006, 0.0002), "fail"),
        (skill(NONE, 0.0001), "fail"),
        (skill(-0.006, 0.01, least_p=0.008), "warn"),  # too few documents to be certain
        (skill(-0.001, 0.0002, own=Interval(-0.002, -0.004, 0.001)), "fail"),  # no skill, no margin
    ],
)
@pytest.mark.parametrize("metric", SKILLS)
def test_each_skill_drifts_by_certainty_and_a_quarter_of_itself(metric: str, found: SkillDrift, severity: str) -> None:
    name, gates = f"skill_drift_{metric}", stage_gates("nightly", new_documents=True)
    result = gates[name](night(skills={metric: found}))
    assert (result.name, result.severity, result.passed) == (name, severity, severity != "fail")
    assert ("is lost" in result.reason) == (severity == "fail")


@pytest.mark.parametrize(
    ("share", "p", "severity"),
    [(0.0001, 0.4, "ok"), (0.008, 0.0001, "warn"), (0.05, 0.02, "ok"), (0.05, 0.0001, "fail"), (NONE, 0.0001, "fail")],
)
def test_embedding_drift_needs_certainty_and_two_per_cent(share: float, p: float, severity: str) -> None:
    found = EmbeddingDrift(Interval(share, share - 0.001, share + 0.001), p, 0.004, (12, 94))
    result = embedding_drift(night(embeddings=found))
    assert (result.severity, result.passed) == (severity, severity != "fail")
    assert "12 documents" in result.reason and ("another kind" in result.reason) == (severity == "fail")


def test_margins_are_settings() -> None:
    limits = GateThresholds(skill_drift=0.9, embedding_drift=0.1, night_level=0.05)
    assert skill_drift_cosine(night(limits, skills={"cosine": skill(-0.006, 0.0002)})).passed
    drift = EmbeddingDrift(Interval(0.05, 0.04, 0.06), 0.04, 0.004, (12, 94))
    assert embedding_drift(night(limits, embeddings=drift)).passed
    assert not embedding_drift(night(limits, embeddings=replace(drift, share=Interval(0.2, 0.1, 0.3)))).passed


# night_skill: a difference of each metric to its baseline, a document


def of_documents(count: int, **differences: float) -> Evaluation:
    """An evaluation of `count` documents whose skill in each metric is given, a little different in each document."""
    noise = np.random.default_rng(0).normal(size=count)
    return by_document({metric: differences.get(metric, 0.02) + 0.001 * noise for metric in SKILLS})


@pytest.mark.parametrize("metric", SKILLS)
@pytest.mark.parametrize(("documents", "severity"), [(40, "fail"), (12, "fail"), (11, "warn")])
def test_night_skill_fails_where_any_of_the_four_is_below_0_and_the_documents_can_tell(metric: str, documents: int, severity: str) -> None:
    assert night_skill(night(night=of_documents(documents))).severity == "ok"
    result = night_skill(night(night=of_documents(documents, **{metric: -0.02})))
    assert result.severity == severity and result.passed == (result.value > result.threshold)
    if severity == "fail":
        assert f"The baseline serves better than this champion in {metric}" in result.reason and "retrain" in result.remedy
    else:
        assert "least p for a skill below 0" in result.reason and "With 11 documents it cannot be below 0.0020" in result.reason


def test_night_skill_names_every_metric_in_which_the_baseline_serves_better() -> None:
    result = night_skill(night(night=of_documents(40, recall_at_1=-0.02, mrr=-0.02)))
    assert result.name == "night_skill" and "The baseline serves better than this champion in recall_at_1, mrr" in result.reason


@pytest.mark.parametrize("metric", SKILLS)
def test_an_interval_below_0_by_a_little_is_a_warning_of_night_skill(metric: str) -> None:
    # 40 documents, mean two and a half standard errors below 0: on one night in forty a champion without skill in it looks so.
    off = np.random.default_rng(1).normal(size=40)
    off = (off - off.mean()) / off.std(ddof=1)
    found = by_document({m: 0.02 + 0.001 * off if m != metric else 0.01 * (off - 2.5 / np.sqrt(40)) for m in SKILLS})
    assert found.skill(metric).high < 0  # type: ignore[operator]
    result = night_skill(night(night=found))
    assert result.severity == "warn" and f"Perhaps the baseline serves better in {metric}" in result.reason


@pytest.mark.parametrize("metric", SKILLS)
def test_a_skill_that_is_not_a_number_fails_night_skill_and_own_numbers(metric: str) -> None:
    broken, sound = of_documents(20, **{metric: NONE}), of_documents(20)
    assert not night_skill(night(night=broken)).passed
    recorded = {name: interval.value for name, interval in sound.metrics().items()}
    assert own_numbers(night(repeated=sound, recorded=recorded)).passed
    assert not own_numbers(night(repeated=broken, recorded=recorded)).passed


@pytest.mark.parametrize("name", ["cosine", *(f"skill_{metric}" for metric in SKILLS)])
def test_own_numbers_sees_a_change_of_any_number(name: str) -> None:
    sound = of_documents(20)
    recorded = {name: interval.value for name, interval in sound.metrics().items()}
    assert not own_numbers(night(repeated=sound, recorded=recorded | {name: recorded[name] + 0.003})).passed


LEVEL = GateThresholds().night_level
EACH = LEVEL / 4
"""The four skills share the level."""


def test_skill_drift_compares_the_difference_with_the_margin_below_zero() -> None:
    result = skill_drift_cosine(night(skills={"cosine": skill(-0.006, 0.0002)}))
    assert (result.value, result.threshold) == (-0.006, -0.25 * OWN.value)
    for part in (f"skill {Interval(0.002, None, None)}", f"its own test documents {OWN}", f"{Interval(-0.006, None, None)}", "p = 0.0002"):
        assert part in result.reason
    assert result.reason.endswith(". More than 25% of the skill is lost")
    assert result.remedy == "look at the documents, retrain with them"


def test_each_metric_is_judged_by_its_own_skill() -> None:
    drifts = {"cosine": skill(0.001, 0.7), "recall_at_5": skill(-0.006, 0.0001)}
    results = [gate(night(skills=drifts)) for gate in (skill_drift_cosine, skill_drift_recall_at_5)]
    assert [(result.name, result.passed) for result in results] == [("skill_drift_cosine", True), ("skill_drift_recall_at_5", False)]


@pytest.mark.parametrize(
    ("found", "severity"),
    [
        (skill(-0.25 * OWN.value, EACH), "warn"),  # no more than the margin is lost
        (skill(-0.0021, EACH), "fail"),
        (skill(-0.0021, 1.01 * EACH), "ok"),
        (skill(-0.0021, EACH, least_p=EACH), "fail"),
        (skill(0.006, EACH), "ok"),  # a certain gain
        (skill(0.0, EACH), "ok"),
    ],
)
def test_the_level_and_the_margin_themselves_count_as_certain_and_as_kept(found: SkillDrift, severity: str) -> None:
    assert skill_drift_cosine(night(skills={"cosine": found})).severity == severity


def test_too_few_documents_for_certainty_are_said_with_the_remedy() -> None:
    result = skill_drift_cosine(night(skills={"cosine": skill(-0.006, 0.01, least_p=0.008)}))
    assert result.reason.startswith("skill ") and result.reason.endswith(". With so few documents p cannot be below 0.0080")
    assert result.remedy == "give more documents"


def test_embedding_drift_says_what_was_found_and_what_to_do() -> None:
    share = Interval(0.05, 0.04, 0.06)
    result = embedding_drift(night(embeddings=EmbeddingDrift(share, LEVEL, 0.004, (12, 94))))
    assert (result.name, result.severity, result.value, result.threshold) == ("embedding_drift", "fail", 0.05, 0.02)
    for part in (
        f"12 documents of the night add {share} of the distance to 94 training",
        "chance alone reaches +0.0040",
        f"p = {LEVEL:.4f}",
    ):
        assert part in result.reason
    assert result.remedy == "check the source, or retrain with them"
    at_the_bound = EmbeddingDrift(Interval(0.02, 0.01, 0.03), LEVEL, 0.004, (12, 94))
    assert embedding_drift(night(embeddings=at_the_bound)).severity == "warn"
