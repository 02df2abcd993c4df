"""Gates on a trained model: the standing champion before training, and every model after it.

They read an `Evaluation`, so that a gate, a table and a figure never disagree about a number.
"""

from collections.abc import Callable, Mapping

import numpy as np

from lvm.config import GateThresholds
from lvm.evaluation.evaluate import Evaluation
from lvm.evaluation.intervals import MIN_DOCUMENTS
from lvm.gates.result import GateResult, gate_result
from lvm.gates.training import CHECK_LOSS, greatest_pairwise, loss_balance
from lvm.models.checkpoint import Checkpoint


def mean_vector_baseline(found: Evaluation, limits: GateThresholds) -> GateResult:
    """The model beats every baseline, the mean vector among them, by an interval above 0."""
    skill, best = found.skill("cosine"), found.best_baseline("cosine")
    mean = float(found.baselines["mean_vector"].cosine.mean())
    reason = f"cosine {found.model.cosine.mean():.4f}, mean vector {mean:.4f}, best baseline {best}: skill {skill}"
    remedy = "train longer, on more documents, or serve the baseline"
    if skill.low is None:
        remedy = f"give more documents: an interval needs {MIN_DOCUMENTS} or more in each evaluated split"
    elif not skill.above_zero():
        reason += ". The model adds nothing to the baseline"
    return gate_result("mean_vector_baseline", skill.low if skill.low is not None else 0.0, 0.0, not skill.above_zero(), reason, remedy)


def _least(margins: Mapping[str, float]) -> float:
    """The least margin, NaN when any is: Python's `min` would step over a NaN that is not the first."""
    return float(np.min(list(margins.values())))


def moment_matching(found: Evaluation, limits: GateThresholds) -> GateResult:
    """Per-dimension deviation of the outputs against the encoder's, and y_dec's norm.

    A conditional mean varies less than its targets, so y_dec is held against ridge's deviation;
    y_cos against the targets'. y_dec is for a decoder, so its norm must be the encoder's. The
    value is the least of the three margins: positive passes.
    """
    c = found.collapse()
    norm = c["y_dec_norm"] / c["target_norm"]
    margins = {
        f"y_dec sigma {c['y_dec_sigma_ratio']:.2f} of the encoder's, ridge {c['ridge_sigma_ratio']:.2f}": c["y_dec_sigma_ratio"]
        - limits.decoder_versus_ridge * c["ridge_sigma_ratio"],
        f"y_cos sigma {c['y_cos_sigma_ratio']:.2f}": c["y_cos_sigma_ratio"] - limits.cosine_sigma_ratio,
        f"y_dec norm {norm:.2f} of the encoder's": limits.norm_ratio - abs(norm - 1),
    }
    target, y_dec = found.spreads["target"], found.spreads["y_dec"]
    off = float(np.abs(y_dec.raw_mean - target.raw_mean).mean() / target.raw_std.mean())
    reason = "; ".join(margins) + f"; mean off by {off:.2f} sigma"
    worst = _least(margins)
    if not worst >= 0:
        reason += ". The outputs lost their spread or scale"
    return gate_result("moment_matching", worst, 0.0, not worst >= 0, reason, "raise loss.moments, loss.variance or loss.norm")


def collapse(found: Evaluation, limits: GateThresholds) -> GateResult:
    """Outputs differ from each other: mean pairwise cosine and effective rank.

    y_dec against ridge's, y_cos against the targets'; above .95 anything has collapsed. The
    value is the least margin: positive passes.
    """
    c = found.collapse()
    margins = {
        f"y_dec pairwise {c['y_dec_pairwise_cosine']:.2f} (ridge {c['ridge_pairwise_cosine']:.2f})": c["ridge_pairwise_cosine"]
        + limits.decoder_pairwise_margin
        - c["y_dec_pairwise_cosine"],
        f"y_dec rank {c['y_dec_effective_rank']:.2f} (ridge {c['ridge_effective_rank']:.2f})": c["y_dec_effective_rank"]
        - limits.decoder_versus_ridge * c["ridge_effective_rank"],
        f"y_cos pairwise {c['y_cos_pairwise_cosine']:.2f} (targets {c['target_pairwise_cosine']:.2f})": c["target_pairwise_cosine"]
        + limits.cosine_pairwise_margin
        - c["y_cos_pairwise_cosine"],
        f"y_cos rank {c['y_cos_effective_rank']:.2f}": c["y_cos_effective_rank"] - limits.cosine_effective_rank,
        "": limits.collapsed_pairwise - greatest_pairwise(found),
    }
    worst = _least(margins)
    reason = "; ".join(name for name in margins if name)
    if not worst >= 0:
        reason += ". The outputs are nearly one vector"
    return gate_result("collapse", worst, 0.0, not worst >= 0, reason, CHECK_LOSS)


def reload_parity(checkpoint: Checkpoint, limits: GateThresholds) -> GateResult:
    """The reloaded model gives the predictions that it gave when it was saved."""
    failed = not checkpoint.parity <= limits.parity
    reason = f"golden predictions differ by {checkpoint.parity:.1e} after the reload"
    return gate_result(
        "reload_parity", checkpoint.parity, limits.parity, failed, reason, "restore the weights and the code, or train again"
    )


EVALUATION_GATES: dict[str, Callable[[Evaluation, GateThresholds], GateResult]] = {
    "mean_vector_baseline": mean_vector_baseline,
    "moment_matching": moment_matching,
    "collapse": collapse,
}


def model_gates(checkpoint: Checkpoint, found: Evaluation, limits: GateThresholds = GateThresholds()) -> list[GateResult]:
    """Every gate on a model that loads at all; `load_checkpoint` itself refuses one that does not."""
    balance = loss_balance(checkpoint.config.train.loss, checkpoint.config.gradient_shares, limits)
    return [reload_parity(checkpoint, limits), balance, *(gate(found, limits) for gate in EVALUATION_GATES.values())]
