"""Evaluations of any two outputs, and what the gates on a model read."""

from typing import cast

import torch
from torch.nn import functional as F

from lvm.config import GateThresholds
from lvm.evaluation.evaluate import Evaluation, Reference, score
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
