"""Gates of a night: has the champion kept its skill, and the documents their kind?

A gate that fires every twentieth night is switched off after a month. So each test for drift has a level of .1 %
and, since with enough documents any difference becomes certain, fails only where the change is large enough to matter.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.data.unseen import copied_rows
from lvm.data.windows import make_windows
from lvm.errors import InputError
from lvm.evaluation.drift import EmbeddingDrift, SkillDrift, embedding_drift, skill_drift
from lvm.evaluation.evaluate import Evaluation, evaluate_checkpoint, make_reference
from lvm.evaluation.intervals import MIN_DOCUMENTS
from lvm.gates.data import chunk_order, duplicates, encoder_unchanged
from lvm.gates.model import collapse, moment_matching, reload_parity
from lvm.gates.result import GateResult, gate_result
from lvm.models.checkpoint import Checkpoint

DEFAULTS = GateThresholds()


def night_skill(night: Evaluation, limits: GateThresholds = DEFAULTS) -> GateResult:
    """The champion is not worse than the baselines it was promoted over: fails when the whole interval lies under 0.

    Its skill was above 0 when it was promoted, so this is no one night in forty: a champion that kept it would
    have to miss it by its skill and two standard errors. Warns when the interval touches 0: a few documents may not show it.
    """
    skill, best = night.skill("cosine"), night.best_baseline("cosine")
    reason = f"cosine {night.model.cosine.mean():.4f}, best baseline {best}: skill {skill}"
    # Not `high < 0`: a NaN is a failure.
    failed = not (skill.value >= 0 if skill.high is None else skill.high >= 0)
    if failed:
        reason += ". The baseline serves better than this champion"
    remedy = "retrain on documents like these, or go back to the version before" if failed else "watch the next nights, with more documents"
    return gate_result(
        "night_skill", skill.value if skill.high is None else skill.high, 0.0, failed, reason, remedy, not skill.above_zero()
    )


def skill_drift_gate(metric: str, found: SkillDrift, limits: GateThresholds = DEFAULTS) -> GateResult:
    """The skill is that of the champion's own test documents, but for a margin: a quarter of it.

    Fails when a permutation test by documents is sure of a loss (.1 %) and the loss exceeds the margin; warns when
    it is sure, or when there are too few documents to ever be. A champion without skill in `metric` has no margin.
    """
    margin = limits.skill_drift * max(found.own.value, 0.0)
    loses = not found.difference.value >= -margin  # a NaN too
    sure, testable = found.p <= limits.night_level, found.least_p <= limits.night_level
    reason = f"skill {found.night}, on its own test documents {found.own}: difference {found.difference}, p = {found.p:.4f}"
    if not testable:
        reason += f". So few documents cannot be surer than {found.least_p:.4f}"
    elif sure and loses:
        reason += f". More than {limits.skill_drift:.0%} of the skill is lost"
    name, warned = f"skill_drift_{metric}", not testable or (sure and found.difference.value < 0)
    remedy = "look at the documents, retrain with them" if testable else "give more documents"
    return gate_result(name, found.difference.value, -margin, sure and loses, reason, remedy, warned)


def embedding_drift_gate(found: EmbeddingDrift, limits: GateThresholds = DEFAULTS) -> GateResult:
    """The night's chunks lie where the training chunks lie.

    Fails when a permutation test by documents is sure of a change (.1 %) and the energy distance exceeds 2 % of the
    distance of two documents; warns when it is sure of a smaller one. For MiniLM and the State of the Union, against 120 addresses:
    ten or more random others lie within .2 %, the ten oldest of them at .7 %, twelve documents each of thirteen
    other collections (commentaries, documentation) at 5.2 to 7.4 %, documents of random words at 13 %.
    """
    share, (night, record) = found.share, found.documents
    sure, far = found.p <= limits.night_level, not share.value <= limits.embedding_drift
    reason = (
        f"{night} documents of the night add {share} of the distance to {record} training documents; "
        f"chance alone reaches {found.chance:+.4f} one night in a thousand, p = {found.p:.4f}"
    )
    if sure and far:
        reason += ". These are documents of another kind than the champion was trained on"
    remedy = "check the source, or retrain with them"
    return gate_result("embedding_drift", share.value, limits.embedding_drift, sure and far, reason, remedy, sure)


def own_numbers(found: Evaluation, recorded: Mapping[str, float], limits: GateThresholds = DEFAULTS) -> GateResult:
    """On its own test documents the champion reaches today what was recorded of it when it was trained.

    Everything that is compared stands on this: the weights, the baselines, the dataset and the code are those of then.
    `recorded` holds 'cosine' and 'skill_cosine'.
    """
    now = {"cosine": found.interval("cosine").value, "skill_cosine": found.skill("cosine").value}
    off = max(abs(now[name] - recorded[name]) for name in now)
    reason = "; ".join(f"{name} {now[name]:.4f}, recorded {recorded[name]:.4f}" for name in now)
    failed = not off <= limits.own_numbers
    if failed:
        reason += ". Weights, baselines, dataset or code are not those of then"
    return gate_result("own_numbers", off, limits.own_numbers, failed, reason, "restore them, or retrain")


METRICS = ("cosine", "recall_at_5")
"""Those whose skill may drift: one for each head."""


@dataclass(frozen=True)
class NightEvaluation:
    """What was measured in one night."""

    night: Evaluation
    own: Evaluation
    """The champion on its own test documents, with a pool of the same size."""

    skills: dict[str, SkillDrift]
    """By metric; empty, as `embeddings` is None, when the night had no documents but the champion's own."""

    embeddings: EmbeddingDrift | None
    gates: list[GateResult]

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "night": self.night.summary(),
            "own": self.own.summary(),
            "skill_drift": {metric: asdict(found) for metric, found in self.skills.items()},
            "embedding_drift": asdict(self.embeddings) if self.embeddings else None,
            "gates": [gate.as_json() for gate in self.gates],
        }


def evaluate_night(
    checkpoint: Checkpoint,
    record: Dataset,
    fresh: Dataset | None,
    recorded: Mapping[str, float],
    encoder: Encoder,
    limits: GateThresholds = GateThresholds(),
) -> NightEvaluation:
    """Measure the champion on the documents of `fresh`, or again on its own test documents where there are none.

    `record` is the dataset that it was trained on, `recorded` the numbers on its test documents of then.
    Chunks that stand in the record's train are not scored. Raises `InputError` when fewer than five
    documents can be scored, and what `make_reference` raises.
    """
    own = evaluate_checkpoint(record, checkpoint, "test")
    gates = [reload_parity(checkpoint, limits), encoder_unchanged(record, encoder, limits), own_numbers(own, recorded, limits)]
    if fresh is None:
        gates += [night_skill(own, limits), moment_matching(own, limits), collapse(own, limits)]
        return NightEvaluation(own, own, {}, None, gates)
    night, own = _at_one_pool_size(checkpoint, fresh, record, own)
    skills = {metric: skill_drift(night, own, metric) for metric in METRICS}
    embeddings = embedding_drift(fresh, record)
    gates += [chunk_order(fresh, limits), duplicates(fresh, limits), embedding_drift_gate(embeddings, limits)]
    gates += [night_skill(night, limits), *(skill_drift_gate(metric, found, limits) for metric, found in skills.items())]
    gates += [moment_matching(night, limits), collapse(night, limits)]
    return NightEvaluation(night, own, skills, embeddings, gates)


def _at_one_pool_size(checkpoint: Checkpoint, fresh: Dataset, record: Dataset, own: Evaluation) -> tuple[Evaluation, Evaluation]:
    """The night, and the champion's own test documents, with equal pools: a larger one is harder and would pass for a loss."""
    device, train = checkpoint.model.mean.device, checkpoint.config.train
    copied = copied_rows(fresh, record, device)
    windows = make_windows(fresh, "all", train.context_length, train.eval_windows, device, copied)
    documents = len(set(windows.docs))
    if documents < MIN_DOCUMENTS:
        raise InputError(f"{documents} new documents can be scored, too few to tell a change from chance: give {MIN_DOCUMENTS} or more")
    size = min(len(windows.pool), len(own.windows.pool))
    ref = make_reference(fresh, checkpoint, "all", pool_size=size, leave_out=copied)
    if size < len(own.windows.pool):
        own = evaluate_checkpoint(record, checkpoint, "test", ref=make_reference(record, checkpoint, "test", pool_size=size))
    return evaluate_checkpoint(fresh, checkpoint, "all", ref=ref), own
