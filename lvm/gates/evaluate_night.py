"""The nightly validation of a champion: its evaluation on new documents beside its own test documents, and all nightly gates."""

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
from lvm.evaluation.evaluate import SKILLS, Evaluation, evaluate_checkpoint, make_reference
from lvm.evaluation.intervals import MIN_DOCUMENTS
from lvm.gates.model import CheckedModel
from lvm.gates.nightly import CheckedNight
from lvm.gates.result import GateResult
from lvm.gates.stages import stage_gates
from lvm.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class NightEvaluation:
    """The result of one night."""

    night: Evaluation
    own: Evaluation
    """The champion on its own test documents, with a pool of the same size."""

    skills: dict[str, SkillDrift]
    """By metric; empty, and `embeddings` None, when the night had no documents but the champion's own."""

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
    limits: GateThresholds,
) -> NightEvaluation:
    """Evaluate the champion on the documents of `fresh`, or again on its own test documents if it is None.

    `record` is the dataset that the champion was trained on, `recorded` its metrics on the test documents from that time.
    Chunks that are in the record's train as well are not scored. Raises `InputError` when fewer than five
    documents can be scored, and what `make_reference` raises.
    """
    repeated = evaluate_checkpoint(record, checkpoint, "test")
    night, own, skills, embeddings = repeated, repeated, {}, None
    if fresh is not None:
        night, own = _at_one_pool_size(checkpoint, fresh, record, repeated)
        skills = {metric: skill_drift(night, own, metric) for metric in SKILLS}
        embeddings = embedding_drift(fresh, record)
    checked = CheckedNight(record, encoder, recorded, repeated, night, skills, embeddings, limits)
    gates = _night_gates(checked, CheckedModel(checkpoint, night, limits), fresh)
    return NightEvaluation(night, own, skills, embeddings, gates)


def _night_gates(night: CheckedNight, model: CheckedModel, fresh: Dataset | None) -> list[GateResult]:
    """The gates on data and models that also run at night, then the nightly ones."""
    results = []
    if fresh is not None:
        device = model.checkpoint.model.mean.device
        results += [gate(fresh, night.limits, device) for gate in stage_gates("data", nightly=True).values()]
    results += [gate(model) for gate in stage_gates("model", nightly=True).values()]
    always = stage_gates("nightly", new_documents=False)
    return results + [gate(night) for name, gate in stage_gates("nightly").items() if fresh is not None or name in always]


def _at_one_pool_size(checkpoint: Checkpoint, fresh: Dataset, record: Dataset, own: Evaluation) -> tuple[Evaluation, Evaluation]:
    """The evaluations on the night's and on the own test documents with equal pools: a larger pool is harder and would look like a loss."""
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
