"""Checks that already run during a training, so that a run that cannot succeed ends early."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lvm.config import GATES, LOSS_TERMS, GateThresholds, LossConfig
from lvm.evaluation.evaluate import Evaluation
from lvm.gates.result import GateResult, gate_result

SHARE_STEPS = (0, 50)
"""The steps whose gradient shares `loss_balance` reads."""


CHECK_LOSS = "check the loss weights and the learning rate"


SATISFIED = {"variance": 0.0, "norm": 1e-6}
"""Terms that have no gradient once they are satisfied, with the greatest unweighted loss that counts as satisfied.

The variance hinge is satisfied at 0. y_dec's length starts at the encoder's root mean square; 1e-6 is a thousandth of that length.
"""


@dataclass(frozen=True)
class CheckedTraining:
    """What the gates read of a training that goes on, after one of its epochs."""

    loss: LossConfig
    epoch: int
    """Counted from 0."""

    total_steps: int
    """Of the whole training."""

    gradient_shares: Sequence[Mapping[str, float]]
    """As recorded so far, see `CheckpointConfig.gradient_shares`."""

    evaluation: Evaluation
    """On validation documents, after this epoch."""

    limits: GateThresholds


def early_gates(training: CheckedTraining) -> list[GateResult]:
    """The results of all gates that can tell something about the training at this point."""
    checks = (GATES.about(name).get("early") for name in GATES)
    results = (check(training) for check in checks if check is not None)
    return [result for result in results if result is not None]


def early_loss_balance(training: CheckedTraining) -> GateResult | None:
    """`loss_balance`, once step 50 is recorded; at once if the training ends before step 50."""
    last = SHARE_STEPS[-1]
    if training.total_steps > last and not any(line["step"] == last for line in training.gradient_shares):
        return None
    return gradient_balance(training.loss, training.gradient_shares, training.limits)


def early_collapse(training: CheckedTraining) -> GateResult | None:
    """`collapse` after the first epoch, by the one bound that already holds then: no output is nearly one vector."""
    return outright_collapse(training.evaluation, training.limits) if training.epoch == 0 else None


def gradient_balance(loss: LossConfig, recorded: Sequence[Mapping[str, float]], limits: GateThresholds) -> GateResult:
    """The gate `loss_balance`: every term with a weight contributes to the gradient.

    `recorded` is `CheckpointConfig.gradient_shares`, of which steps 0 and 50 count, or step 0 alone if there is no other. A term's share
    is the norm of its weighted gradient over the largest term's, the greater of the two steps. The value is the least
    share. Fails when a term that is not satisfied has no gradient at either step, when all weights are 0, or when nothing was
    recorded; warns below `gradient_share`.
    """
    limit = limits.gradient_share
    weighted = [name for name in LOSS_TERMS if loss.weight(name)]
    if not weighted:
        remedy = f"give one of {', '.join(f'loss.{name}' for name in LOSS_TERMS)} a value"
        return gate_result("loss_balance", 0.0, limit, True, "the loss weights sum to 0, so that nothing is learned", remedy)
    counted = [line for line in recorded if line["step"] in SHARE_STEPS]
    if not counted:
        return gate_result("loss_balance", 0.0, limit, True, "no gradient shares were recorded", "train again with this version")
    share = {name: float(np.max([line.get(f"train/gradient_share_{name}", 0.0) for line in counted])) for name in weighted}
    satisfied = [n for n, most in SATISFIED.items() if n in share and all(line.get(f"train/loss_{n}", np.inf) <= most for line in counted)]
    active = {name: value for name, value in share.items() if name not in satisfied}
    least = float(np.min(list(active.values()) or [1.0]))
    silent = [name for name, value in active.items() if not value > 0]  # a NaN contributes nothing either
    weak = [name for name, value in active.items() if not value >= limit]
    reason = _balance_reason(active, satisfied, [name for name in LOSS_TERMS if name not in weighted], counted)
    remedy = f"raise {' and '.join(f'loss.{name}' for name in weak)}, or set what should not contribute to 0"
    if silent:
        reason += f". No gradient of {' and '.join(silent)} reaches the model"
        remedy = "; ".join(f"check that {name} is computed from the model's output, or set loss.{name}=0" for name in silent)
    return gate_result("loss_balance", least, limit, bool(silent), reason, remedy, bool(weak))


def _balance_reason(
    active: Mapping[str, float], satisfied: Sequence[str], off: Sequence[str], counted: Sequence[Mapping[str, float]]
) -> str:
    """The share of each active term, then the terms that are satisfied and those without a weight."""
    steps = " and ".join(f"step {line['step']:.0f}" for line in counted)
    reason = f"share of the largest gradient at {steps}: " + ", ".join(f"{name} {value:.3g}" for name, value in active.items())
    reason += f"; satisfied: {', '.join(satisfied)}" if satisfied else ""
    return reason + (f"; switched off: {', '.join(off)}" if off else "")


def outright_collapse(evaluation: Evaluation, limits: GateThresholds) -> GateResult:
    """No output is nearly one vector. The value is the greater mean pairwise cosine of the two outputs."""
    greatest = greatest_pairwise(evaluation)
    failed = not greatest <= limits.collapsed_pairwise
    reason = f"mean pairwise cosine of the outputs on {evaluation.split} documents {greatest:.3f}"
    if failed:
        reason += ". The outputs are nearly one vector"
    return gate_result("collapse", greatest, limits.collapsed_pairwise, failed, reason, CHECK_LOSS)


def greatest_pairwise(evaluation: Evaluation) -> float:
    """The greater mean pairwise cosine of the two outputs; NaN when either is."""
    return float(np.max([evaluation.spreads[name].pairwise_cosine for name in ("y_dec", "y_cos")]))
