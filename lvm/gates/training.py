"""Gates on a training: held after its first epoch, so that a run in vain ends early, and on the model at the end."""

from collections.abc import Mapping, Sequence

import numpy as np

from lvm.config import LOSS_TERMS, GateThresholds, LossConfig
from lvm.evaluation.evaluate import Evaluation
from lvm.gates.result import GateResult, gate_result

SHARE_STEPS = (0, 50)
"""Steps whose gradient shares the gate `loss_balance` reads."""


CHECK_LOSS = "check the loss weights and the learning rate"


SATISFIED = {"variance": 0.0, "norm": 1e-6}
"""Terms that have no gradient when they are satisfied, with the loss, unweighted, up to which they are: the hinge, and y_dec's length,
which starts at the encoder's root mean square (1e-6 is a thousandth of that length)."""


def loss_balance(loss: LossConfig, measured: Sequence[Mapping[str, float]], limits: GateThresholds = GateThresholds()) -> GateResult:
    """Every term that has a weight steers.

    `measured` is what a training recorded (`CheckpointConfig.gradient_shares`); of it, steps 0 and 50 count, or step 0 alone
    where there was no other. A term's share is the norm of its gradient, after its weight, over the largest term's; the
    greater of the two steps'. The value is the least share. Fails when a term has none at either step, one that is
    satisfied excepted, when all weights are 0, or when nothing was recorded; warns under `gradient_share`.
    """
    limit = limits.gradient_share
    weighted = [name for name in LOSS_TERMS if getattr(loss, name)]
    if not weighted:
        remedy = f"give one of {', '.join(f'loss.{name}' for name in LOSS_TERMS)} a value"
        return gate_result("loss_balance", 0.0, limit, True, "the loss weights sum to 0, so that nothing is learned", remedy)
    counted = [line for line in measured if line["step"] in SHARE_STEPS]
    if not counted:
        return gate_result("loss_balance", 0.0, limit, True, "no gradient shares were recorded", "train again with this version")
    share = {name: float(np.max([line.get(f"train/gradient_share_{name}", 0.0) for line in counted])) for name in weighted}
    satisfied = [n for n, most in SATISFIED.items() if n in share and all(line.get(f"train/loss_{n}", np.inf) <= most for line in counted)]
    steering = {name: value for name, value in share.items() if name not in satisfied}
    least = float(np.min(list(steering.values()) or [1.0]))
    silent = [name for name, value in steering.items() if not value > 0]  # a NaN steers nothing either
    steps = " and ".join(f"step {line['step']:.0f}" for line in counted)
    reason = f"share of the largest gradient at {steps}: " + ", ".join(f"{name} {value:.3g}" for name, value in steering.items())
    reason += f"; satisfied: {', '.join(satisfied)}" if satisfied else ""
    off = [name for name in LOSS_TERMS if name not in weighted]
    reason += f"; switched off: {', '.join(off)}" if off else ""
    weak = [name for name, value in steering.items() if not value >= limit]
    remedy = f"raise {' and '.join(f'loss.{name}' for name in weak)}, or switch off by 0 what is not to steer"
    if silent:
        reason += f". No gradient of {' and '.join(silent)} reaches the model"
        remedy = f"mend the way from the model to {' and '.join(silent)}, or switch it off by 0"
    return gate_result("loss_balance", least, limit, bool(silent), reason, remedy, bool(weak))


def outright_collapse(found: Evaluation, limits: GateThresholds = GateThresholds()) -> GateResult:
    """Neither output is nearly one vector: the one line of `collapse` that may be drawn after an epoch already.

    The value is the greater mean pairwise cosine of the two outputs.
    """
    greatest = greatest_pairwise(found)
    failed = not greatest <= limits.collapsed_pairwise
    reason = f"mean pairwise cosine of the outputs on {found.split} documents {greatest:.3f}"
    if failed:
        reason += ". The outputs are nearly one vector"
    return gate_result("collapse", greatest, limits.collapsed_pairwise, failed, reason, CHECK_LOSS)


def greatest_pairwise(found: Evaluation) -> float:
    """Mean pairwise cosine of whichever output has the greater; NaN when either is."""
    return float(np.max([found.spreads[name].pairwise_cosine for name in ("y_dec", "y_cos")]))


def early_gates(
    loss: LossConfig,
    epoch: int,
    total_steps: int,
    measured: Sequence[Mapping[str, float]],
    found: Evaluation,
    limits: GateThresholds = GateThresholds(),
) -> list[GateResult]:
    """The gates after `epoch`, counted from 0, of a training of `total_steps`.

    Collapse is judged after the first epoch. The balance of the loss too, unless step 50 lies in a later one: then after that.
    """
    results = [outright_collapse(found, limits)] if epoch == 0 else []
    if total_steps <= SHARE_STEPS[-1] or any(line["step"] == SHARE_STEPS[-1] for line in measured):
        results.append(loss_balance(loss, measured, limits))
    return results
