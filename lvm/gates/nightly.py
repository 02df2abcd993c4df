"""Gates of the nightly validation: does the champion keep its skill, and are the documents still of the same kind?

A gate that fires every twentieth night gets switched off. So there are three questions whose answer may be an accident, each asked at
a level of .1 %: have the embeddings drifted, has any skill drifted, is any skill below 0? The last two are asked of four skills, so
each of the four is tested at a quarter of the level (Bonferroni): together the three give a false alarm about once a year. Since
enough documents make any difference significant, a drift fails only if it is also large enough to matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lvm.config import GATES, GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.evaluation.drift import EmbeddingDrift, SkillDrift
from lvm.evaluation.evaluate import SKILLS, Evaluation
from lvm.evaluation.sign_test import below_zero, least_p
from lvm.gates.reencoding import reencoded
from lvm.gates.result import GateResult, gate_result
from lvm.gates.skills import certainly_worse, four_skills, skill_text, uncertain

OWN_NUMBERS = ("cosine", *(f"skill_{metric}" for metric in SKILLS))
"""What the champion has to reach again on its own test documents."""


@dataclass(frozen=True)
class CheckedNight:
    """What a nightly gate reads."""

    record: Dataset
    """The dataset that the champion was trained on."""

    encoder: Encoder
    """Its encoder, as it is installed today."""

    recorded: Mapping[str, float]
    """The metrics of `OWN_NUMBERS` on the champion's own test documents, as recorded at training."""

    repeated: Evaluation
    """The evaluation on the own test documents that gave those numbers, repeated tonight."""

    night: Evaluation
    """On the night's documents; on the own test documents if there are no new ones."""

    skills: Mapping[str, SkillDrift]
    """By metric; empty without new documents."""

    embeddings: EmbeddingDrift | None
    """None without new documents."""

    limits: GateThresholds


@GATES.register("encoder_unchanged", stage="nightly")
def encoder_unchanged(night: CheckedNight) -> GateResult:
    """Today's encoder reproduces the vectors that were stored at extraction; compared as in `reencoded`.

    Weights of the same digest can give other vectors after an upgrade of a library or a driver. Raises `InputError`
    when the recipes differ.
    """
    night.record.manifest.recipe.require_same(night.encoder.recipe, f"dataset {night.record.path}")
    problem = "The encoder gives other vectors than the model was trained on"
    remedy = "go back to the library versions of the extraction, or extract and train again"
    return reencoded("encoder_unchanged", "today's encoder", night.record, night.encoder, problem, remedy, night.limits)


@GATES.register("own_numbers", stage="nightly")
def own_numbers(night: CheckedNight) -> GateResult:
    """On its own test documents the champion still reaches what was recorded at training.

    Every comparison depends on this: weights, baselines, dataset and code have to be unchanged.
    """
    found, recorded, limit = night.repeated, night.recorded, night.limits.own_numbers
    values = found.values()
    now = {name: values[name] for name in OWN_NUMBERS}
    off = float(np.max([abs(now[name] - recorded[name]) for name in now]))  # Python's `max` ignores a NaN that does not come first
    reason = "; ".join(f"{name} {now[name]:.4f}, recorded {recorded[name]:.4f}" for name in now)
    failed = not off <= limit
    if failed:
        reason += ". Weights, baselines, dataset or code have changed since training"
    return gate_result("own_numbers", off, limit, failed, reason, "restore them, or retrain")


@GATES.register("embedding_drift", stage="nightly", new_documents=True)
def embedding_drift(night: CheckedNight) -> GateResult:
    """The night's chunks have the distribution of the training chunks.

    Fails when a permutation test by documents finds a change (.1 %) and the energy distance exceeds 2 % of the distance of two
    documents; warns when it finds a smaller change. For MiniLM and the State of the Union, against 120 addresses: ten or more
    random other addresses reach up to .2 %, the ten oldest .7 %, twelve documents each of thirteen other collections
    (commentaries, documentation) 5.2 to 7.4 %, documents of random words 13 %.
    """
    found, limits = night.embeddings, night.limits
    assert found is not None
    share, (new, record) = found.share, found.documents
    sure, far = found.p <= limits.night_level, not share.value <= limits.embedding_drift
    reason = (
        f"{new} documents of the night add {share} of the distance to {record} training documents; "
        f"chance alone reaches {found.chance:+.4f} one night in a thousand, p = {found.p:.4f}"
    )
    if sure and far:
        reason += ". These are documents of another kind than the champion was trained on"
    remedy = "check the source, or retrain with them"
    return gate_result("embedding_drift", share.value, limits.embedding_drift, sure and far, reason, remedy, sure)


@GATES.register("night_skill", stage="nightly")
def night_skill(night: CheckedNight) -> GateResult:
    """The champion is not worse than the best of its baselines on the night's documents, in any of the four skills.

    Fails when a test of signs by documents finds a skill below 0, at `night_level` for the four together. The value is the least of
    their p-values times four. An interval below 0 is not enough: a champion may be promoted with a skill of about 0 in one metric,
    and the interval of such a skill lies below 0 on one night in forty. Warns when an interval does not lie above 0, since a few
    documents may not show a skill. Eleven documents or fewer cannot fail at the default level.
    """
    found, limits = night.night, night.limits
    skills, tests = four_skills(found), len(SKILLS)
    p = {metric: min(1.0, tests * below_zero(found.skills(metric), found.windows.docs)) for metric in SKILLS}
    worse = [metric for metric in SKILLS if p[metric] <= limits.night_level]
    reason = f"{skill_text(found, skills)}; least p for a skill below 0, times {tests}: {min(p.values()):.4f}"
    documents = len(np.unique(found.windows.docs))
    remedy = "watch the next nights, with more documents"
    if worse:
        reason += f". The baseline serves better than this champion in {', '.join(worse)}"
        remedy = "retrain on documents like these, or go back to the version before"
    elif tests * least_p(documents) > limits.night_level:
        reason += f". With {documents} documents it cannot be below {tests * least_p(documents):.4f}"
    elif below := certainly_worse(skills):
        reason += f". Perhaps the baseline serves better in {', '.join(below)}"
    return gate_result("night_skill", min(p.values()), limits.night_level, bool(worse), reason, remedy, bool(uncertain(skills)))


@GATES.register("skill_drift_cosine", stage="nightly", new_documents=True)
def skill_drift_cosine(night: CheckedNight) -> GateResult:
    """The skill in cosine on new documents is that on the champion's own test documents; see `_skill_drift`."""
    return _skill_drift(night, "cosine")


@GATES.register("skill_drift_recall_at_1", stage="nightly", new_documents=True)
def skill_drift_recall_at_1(night: CheckedNight) -> GateResult:
    """The skill in recall@1 on new documents is that on the champion's own test documents; see `_skill_drift`."""
    return _skill_drift(night, "recall_at_1")


@GATES.register("skill_drift_recall_at_5", stage="nightly", new_documents=True)
def skill_drift_recall_at_5(night: CheckedNight) -> GateResult:
    """The skill in recall@5 on new documents is that on the champion's own test documents; see `_skill_drift`."""
    return _skill_drift(night, "recall_at_5")


@GATES.register("skill_drift_mrr", stage="nightly", new_documents=True)
def skill_drift_mrr(night: CheckedNight) -> GateResult:
    """The skill in mean reciprocal rank on new documents is that on the champion's own test documents; see `_skill_drift`."""
    return _skill_drift(night, "mrr")


def _skill_drift(night: CheckedNight, metric: str) -> GateResult:
    """The skill in `metric` is that on the own test documents, less a margin of a quarter of it.

    Fails when a permutation test by documents finds a loss and the loss exceeds the margin; warns when it finds a smaller
    loss, or when there are too few documents for any significance. A champion without skill in `metric` has no margin. The rivals are
    those in the checkpoint on either side, so what is compared are margins over them, not how hard the documents are. The gates of
    the four skills share `night_level`.
    """
    found, limits = night.skills[metric], night.limits
    level = limits.night_level / len(SKILLS)
    margin = limits.skill_drift * max(found.own.value, 0.0)
    loses = not found.difference.value >= -margin  # a NaN too
    sure, testable = found.p <= level, found.least_p <= level
    reason = f"skill {found.night}, on its own test documents {found.own}: difference {found.difference}, p = {found.p:.4f}"
    if not testable:
        reason += f". With so few documents p cannot be below {found.least_p:.4f}"
    elif sure and loses:
        reason += f". More than {limits.skill_drift:.0%} of the skill is lost"
    name, warned = f"skill_drift_{metric}", not testable or (sure and found.difference.value < 0)
    remedy = "look at the documents, retrain with them" if testable else "give more documents"
    return gate_result(name, found.difference.value, -margin, sure and loses, reason, remedy, warned)
