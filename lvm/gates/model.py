"""Gates on a trained model: on the current champion before a training, and on every model after it.

They read an `Evaluation`, so that a gate, a table and a figure never disagree about a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lvm.config import GATES, GateThresholds
from lvm.evaluation.evaluate import Evaluation
from lvm.evaluation.intervals import MIN_DOCUMENTS
from lvm.gates.result import GateResult, gate_result
from lvm.gates.skills import certainly_worse, four_skills, skill_text, uncertain
from lvm.gates.stages import stage_gates
from lvm.gates.training import CHECK_LOSS, early_collapse, early_loss_balance, gradient_balance, greatest_pairwise
from lvm.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class CheckedModel:
    """What a gate on a model reads."""

    checkpoint: Checkpoint
    evaluation: Evaluation
    """On validation documents; in the nightly validation on the night's."""

    limits: GateThresholds


@GATES.register("reload_parity", stage="model", nightly=True)
def reload_parity(model: CheckedModel) -> GateResult:
    """The reloaded model gives the predictions that it gave when it was saved."""
    parity, limit = model.checkpoint.parity, model.limits.parity
    reason = f"golden predictions differ by {parity:.1e} after the reload"
    return gate_result("reload_parity", parity, limit, not parity <= limit, reason, "restore the weights and the code, or train again")


@GATES.register("loss_balance", stage="model", early=early_loss_balance)
def loss_balance(model: CheckedModel) -> GateResult:
    """Every loss term with a weight contributed to the training's gradient; see `gradient_balance`."""
    config = model.checkpoint.config
    return gradient_balance(config.train.loss, config.gradient_shares, model.limits)


@GATES.register("baselines", stage="model")
def baselines(model: CheckedModel) -> GateResult:
    """The model is better than the best baseline in something, and certainly worse in nothing: by cosine (y_dec) and retrieval (y_cos).

    Fails when the interval of any of the four skills lies wholly below 0, when none lies wholly above 0, or when there are too few
    documents for intervals. Warns when it passes and an interval includes 0: there the model may be no better than the baseline.
    The value must lie above 0. It is the lowest upper end where an interval lies below 0, else the highest lower end.

    Each end of a 95 % interval misses once in forty times. So chance passes a model that equals its baselines in all four at most once in
    ten times, and refuses a model that is better in one and equal in the others at most three times in forty.
    """
    found, skills = model.evaluation, four_skills(model.evaluation)
    reason, remedy = skill_text(found, skills), "train longer, on more documents, or serve the baseline"
    if any(skill.low is None for skill in skills.values()):
        there = len(np.unique(found.windows.docs))
        remedy = f"give more documents: an interval needs {MIN_DOCUMENTS} or more in each evaluated split, and here are {there}"
        return gate_result("baselines", 0.0, 0.0, True, reason, remedy)
    worse, unsure = certainly_worse(skills), uncertain(skills)
    lows, highs = np.array([(skill.low, skill.high) for skill in skills.values()], float).T
    value = highs.min() if worse else lows.max()
    if worse:
        reason += f". The baseline is better in {', '.join(worse)}"
    elif not value > 0:
        reason += ". The model adds nothing to the baselines"
    elif unsure:
        reason += f". No certain gain in {', '.join(unsure)}"
        remedy = "train longer, on more documents, or use the baseline for what is not certain"
    return gate_result("baselines", value, 0.0, not value > 0, reason, remedy, bool(unsure))


@GATES.register("moment_matching", stage="model", nightly=True)
def moment_matching(model: CheckedModel) -> GateResult:
    """The outputs have the encoder's per-dimension deviation, and y_dec its norm.

    A conditional mean varies less than its targets, so y_dec is compared with ridge's deviation and y_cos with the
    targets'. A decoder reads y_dec, so its norm must be the encoder's. The value is the least of three margins; positive passes.
    """
    found, limits = model.evaluation, model.limits
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


@GATES.register("collapse", stage="model", nightly=True, early=early_collapse)
def collapse(model: CheckedModel) -> GateResult:
    """The outputs differ from each other, by mean pairwise cosine and effective rank.

    y_dec is compared with ridge, y_cos with the targets. Above a pairwise cosine of .95 any output counts as collapsed. The
    value is the least margin; positive passes.
    """
    found, limits = model.evaluation, model.limits
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


def _least(margins: Mapping[str, float]) -> float:
    """The least margin, NaN when any is: Python's `min` ignores a NaN that does not come first."""
    return float(np.min(list(margins.values())))


def model_gates(checkpoint: Checkpoint, evaluation: Evaluation, limits: GateThresholds) -> list[GateResult]:
    """Every gate on a model, in their order."""
    model = CheckedModel(checkpoint, evaluation, limits)
    return [gate(model) for gate in stage_gates("model").values()]
