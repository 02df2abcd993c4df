"""The gates of a night fail for what is both certain and large, warn for what is one of the two, and see a NaN."""

from dataclasses import replace
from typing import Any

import pytest

from lvm.config import GateThresholds
from lvm.evaluation.drift import EmbeddingDrift, SkillDrift
from lvm.evaluation.intervals import Interval
from lvm.gates.nightly import CheckedNight, embedding_drift, skill_drift_cosine

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
        (skill(-0.006, 0.0005), "fail"),
        (skill(NONE, 0.0001), "fail"),
        (skill(-0.006, 0.01, least_p=0.008), "warn"),  # too few documents to be certain
        (skill(-0.001, 0.0005, own=Interval(-0.002, -0.004, 0.001)), "fail"),  # no skill, no margin
    ],
)
def test_skill_drift_needs_certainty_and_a_quarter_of_the_skill(found: SkillDrift, severity: str) -> None:
    result = skill_drift_cosine(night(skills={"cosine": found}))
    assert (result.name, result.severity, result.passed) == ("skill_drift_cosine", severity, severity != "fail")
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
    assert skill_drift_cosine(night(limits, skills={"cosine": skill(-0.006, 0.0005)})).passed
    drift = EmbeddingDrift(Interval(0.05, 0.04, 0.06), 0.04, 0.004, (12, 94))
    assert embedding_drift(night(limits, embeddings=drift)).passed
    assert not embedding_drift(night(limits, embeddings=replace(drift, share=Interval(0.2, 0.1, 0.3)))).passed
