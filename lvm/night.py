"""Judge a champion on documents of a night: every number beside its own on its test documents, and the gates."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lvm.checkpoint import Checkpoint
from lvm.config import GateThresholds
from lvm.corpus.dataset import Dataset
from lvm.diagnostics.data import chunk_order, duplicates
from lvm.diagnostics.decoder import encoder_unchanged
from lvm.diagnostics.gate import GateResult
from lvm.diagnostics.model import collapse, moment_matching, reload_parity
from lvm.diagnostics.night import embedding_drift_gate, night_skill, own_numbers, skill_drift_gate
from lvm.drift import EmbeddingDrift, SkillDrift, embedding_drift, skill_drift
from lvm.encode.encoder import Encoder
from lvm.errors import InputError
from lvm.evaluation import Evaluation
from lvm.fresh import copied_rows
from lvm.metrics import MIN_DOCUMENTS
from lvm.validation import make_reference, validate
from lvm.windows import make_windows

METRICS = ("cosine", "recall_at_5")
"""Those whose skill may drift: one for each head."""


@dataclass(frozen=True)
class JudgedNight:
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


def judge_night(
    checkpoint: Checkpoint,
    record: Dataset,
    fresh: Dataset | None,
    recorded: Mapping[str, float],
    encoder: Encoder,
    limits: GateThresholds = GateThresholds(),
) -> JudgedNight:
    """Measure the champion on the documents of `fresh`, or again on its own test documents where there are none.

    `record` is the dataset that it was trained on, `recorded` the numbers on its test documents of then.
    Chunks that stand in the record's train are not scored. Raises `InputError` when fewer than five
    documents can be scored, and what `make_reference` raises.
    """
    own = validate(record, checkpoint, "test")
    gates = [reload_parity(checkpoint, limits), encoder_unchanged(record, encoder, limits), own_numbers(own, recorded, limits)]
    if fresh is None:
        gates += [night_skill(own, limits), moment_matching(own, limits), collapse(own, limits)]
        return JudgedNight(own, own, {}, None, gates)
    night, own = _at_one_pool_size(checkpoint, fresh, record, own)
    skills = {metric: skill_drift(night, own, metric) for metric in METRICS}
    embeddings = embedding_drift(fresh, record)
    gates += [chunk_order(fresh, limits), duplicates(fresh, limits), embedding_drift_gate(embeddings, limits)]
    gates += [night_skill(night, limits), *(skill_drift_gate(metric, found, limits) for metric, found in skills.items())]
    gates += [moment_matching(night, limits), collapse(night, limits)]
    return JudgedNight(night, own, skills, embeddings, gates)


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
        own = validate(record, checkpoint, "test", ref=make_reference(record, checkpoint, "test", pool_size=size))
    return validate(fresh, checkpoint, "all", ref=ref), own
