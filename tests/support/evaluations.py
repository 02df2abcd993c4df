"""Evaluations of any two outputs, and what the gates on a model read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from torch.nn import functional as F

from lvm.config import GateThresholds
from lvm.data.windows import Windows
from lvm.evaluation.evaluate import SKILLS, Evaluation, Reference, Scores, score
from lvm.evaluation.intervals import Interval
from lvm.evaluation.metrics import spread
from lvm.gates.model import CheckedModel
from lvm.models.checkpoint import Checkpoint


def evaluation_of(ref: Reference, y_dec: torch.Tensor, y_cos: torch.Tensor | None = None) -> Evaluation:
    """The evaluation of any two outputs [N, D] on the windows of `ref`; of one for both heads."""
    y_cos = F.normalize(y_dec if y_cos is None else y_cos, dim=-1)
    outputs = {"target": ref.targets, "y_dec": y_dec, "y_cos": y_cos, "ridge": ref.ridge}
    spreads = {name: spread(vectors) for name, vectors in outputs.items()}
    scores = score(y_dec, y_cos, ref.targets, ref.pool, ref.windows)
    return Evaluation("val", ref.windows, scores, ref.scores, scores.cosine, spreads)


def checked(evaluation: Evaluation, limits: GateThresholds = GateThresholds(), checkpoint: Checkpoint | None = None) -> CheckedModel:
    """What a gate reads; no checkpoint for a gate that reads the evaluation alone."""
    return CheckedModel(cast(Checkpoint, checkpoint), evaluation, limits)


@dataclass(frozen=True)
class KnownSkills(Evaluation):
    """An evaluation whose skills are given."""

    known: Mapping[str, Interval] = field(default_factory=dict)

    def skill(self, metric: str) -> Interval:
        """The given one."""
        return self.known[metric]


def with_skills(found: Evaluation, skills: Mapping[str, Interval]) -> Evaluation:
    """`found` as if its skills were these."""
    return KnownSkills(**vars(found), known=skills)


@dataclass(frozen=True)
class GivenScores(Scores):
    """Scores with any values [N] for each metric."""

    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    def quantity(self, name: str) -> np.ndarray:
        """The given ones; zeros for another metric."""
        return self.values.get(name, np.zeros(len(self.cosine)))


def by_document(skills: Mapping[str, np.ndarray], chunks: int = 10) -> Evaluation:
    """An evaluation over one baseline, whose skill in each metric of `SKILLS` is given by document, the same in each of its windows."""
    docs = np.repeat(np.arange(len(skills["cosine"])), chunks)
    windows = cast(Windows, SimpleNamespace(docs=docs))
    nothing, ranks = np.zeros(len(docs)), np.ones(len(docs), int)
    model = GivenScores(nothing, ranks, {metric: skills[metric][docs] for metric in SKILLS})
    return Evaluation("test", windows, model, {"baseline": GivenScores(nothing, ranks)}, nothing, {})
