"""The gates on a training see a term that steers nothing, and outputs that are nearly one vector; a satisfied hinge is neither."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from lvm.config import LOSS_TERMS, GateThresholds, LossConfig
from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import Evaluation, evaluate_checkpoint
from lvm.gates.training import (
    CHECK_LOSS,
    CheckedTraining,
    early_collapse,
    early_gates,
    early_loss_balance,
    gradient_balance,
    outright_collapse,
)
from lvm.models.checkpoint import CheckpointConfig, load_checkpoint, read_config
from tests.support.trainings import trained

LIMITS = GateThresholds()
STEERING = [term for term in LOSS_TERMS if getattr(LossConfig(), term)]
"""Terms that have a weight by default."""
NAN = float("nan")


@pytest.fixture(scope="module")
def config(dataset: Dataset) -> CheckpointConfig:
    """Of a model that was really trained: 51 steps."""
    return read_config(trained(dataset))


@pytest.fixture(scope="module")
def found(dataset: Dataset) -> Evaluation:
    """That model on its validation documents."""
    return evaluate_checkpoint(dataset, load_checkpoint(trained(dataset), torch.device("cpu")), "val")


def measured(config: CheckpointConfig, *steps: Mapping[str, float]) -> list[dict[str, float]]:
    """What was measured at steps 0 and 50, with other shares (`infonce`) and losses (`loss_variance`) in one after the other."""
    lines = [dict(line) for line in config.gradient_shares]
    for line, changes in zip(lines, steps, strict=True):
        line |= {f"train/{name if name.startswith('loss_') else f'gradient_share_{name}'}": value for name, value in changes.items()}
    return lines


def test_terms_that_steer_pass_and_those_that_hardly_do_are_named(config: CheckpointConfig) -> None:
    result = gradient_balance(config.train.loss, config.gradient_shares, LIMITS)
    shares = {n: max(line[f"train/gradient_share_{n}"] for line in config.gradient_shares) for n in STEERING}
    assert result.passed and result.value == pytest.approx(min(shares.values())) and result.threshold == LIMITS.gradient_share == 0.01
    assert result.name == "loss_balance"
    assert "at step 0 and step 50" in result.reason and all(f"{name} {share:.3g}" in result.reason for name, share in shares.items())
    weak = [name for name, share in shares.items() if share < 0.01]
    assert result.severity == ("warn" if weak else "ok")
    assert all((f"loss.{name}" in result.remedy) == (name in weak) for name in STEERING)


@pytest.mark.parametrize("name", ["regression", "norm", "infonce", "moments"])
def test_term_with_a_weight_and_no_gradient_at_either_step_fails(config: CheckpointConfig, name: str) -> None:
    result = gradient_balance(config.train.loss, measured(config, {name: 0.0}, {name: 0.0}), LIMITS)
    assert (result.severity, result.value) == ("fail", 0)
    assert result.reason.startswith("share of the largest gradient at ") and f". No gradient of {name} reaches the model" in result.reason
    assert result.remedy == f"check that {name} is computed from the model's output, or set loss.{name}=0"


@pytest.mark.parametrize("step", [0, 1])
def test_gradient_at_one_of_the_two_steps_is_enough(config: CheckpointConfig, step: int) -> None:
    changes: list[dict[str, float]] = [{"infonce": 0.0}, {"infonce": 0.0}]
    changes[step] = {"infonce": 0.5}
    assert gradient_balance(config.train.loss, measured(config, *changes), LIMITS).passed
    assert not gradient_balance(config.train.loss, measured(config, *changes)[1 - step : 2 - step], LIMITS).passed, "that step alone"


@pytest.mark.parametrize(("name", "left"), [("variance", 0.0), ("norm", 3e-15)])
def test_a_term_that_is_satisfied_has_no_gradient_and_passes(config: CheckpointConfig, name: str, left: float) -> None:
    satisfied = {name: left, f"loss_{name}": left}
    result = gradient_balance(config.train.loss, measured(config, satisfied, satisfied), LIMITS)
    assert result.passed and f"; satisfied: {name};" in result.reason
    assert f"loss.{name}" not in result.remedy


def test_terms_that_are_all_satisfied_are_listed_and_nothing_is_amiss(config: CheckpointConfig) -> None:
    alone = LossConfig(**dict.fromkeys(LOSS_TERMS, 0) | {"variance": 1.0, "norm": 1.0})
    satisfied = {"variance": 0.0, "norm": 0.0, "loss_variance": 0.0, "loss_norm": 0.0}
    result = gradient_balance(alone, measured(config, satisfied, satisfied), LIMITS)
    assert (result.severity, result.value) == ("ok", 1.0)
    assert "; satisfied: variance, norm;" in result.reason


def test_a_share_at_the_threshold_is_enough_and_one_below_it_warns(config: CheckpointConfig) -> None:
    for share, severity in ((LIMITS.gradient_share, "ok"), (0.99 * LIMITS.gradient_share, "warn")):
        same = dict.fromkeys(STEERING, 1.0) | {"infonce": share}
        result = gradient_balance(config.train.loss, measured(config, same, same), LIMITS)
        assert (result.severity, result.value) == (severity, share)


def test_several_terms_that_hardly_steer_are_each_named_with_what_to_do(config: CheckpointConfig) -> None:
    little = dict.fromkeys(STEERING, 1.0) | {"infonce": 0.001, "moments": 0.002}
    result = gradient_balance(config.train.loss, measured(config, little, little), LIMITS)
    assert result.severity == "warn"
    assert result.remedy == "raise loss.infonce and loss.moments, or set what should not contribute to 0"


def test_several_terms_without_a_gradient_are_each_named_with_what_to_check(config: CheckpointConfig) -> None:
    nothing = {"infonce": 0.0, "moments": 0.0}
    result = gradient_balance(config.train.loss, measured(config, nothing, nothing), LIMITS)
    assert ". No gradient of infonce and moments reaches the model" in result.reason
    assert result.remedy == "; ".join(
        f"check that {name} is computed from the model's output, or set loss.{name}=0" for name in ("infonce", "moments")
    )


@pytest.mark.parametrize("name", ["variance", "norm"])
def test_a_term_without_a_gradient_that_is_not_satisfied_fails(config: CheckpointConfig, name: str) -> None:
    unmet = {name: 0.0, f"loss_{name}": 0.3}
    for first in (unmet, {name: 0.0, f"loss_{name}": 0.0}):
        result = gradient_balance(config.train.loss, measured(config, first, unmet), LIMITS)
        assert not result.passed and f"No gradient of {name}" in result.reason


def test_a_term_that_cannot_be_satisfied_and_loses_nothing_fails(config: CheckpointConfig) -> None:
    nothing = {"infonce": 0.0, "loss_infonce": 0.0}
    assert not gradient_balance(config.train.loss, measured(config, nothing, nothing), LIMITS).passed


def test_term_that_was_never_measured_or_measured_as_nan_fails(config: CheckpointConfig) -> None:
    lines = measured(config, {}, {"infonce": NAN})
    assert not gradient_balance(config.train.loss, lines, LIMITS).passed
    without = [{name: value for name, value in line.items() if "norm" not in name} for line in config.gradient_shares]
    assert "No gradient of norm" in gradient_balance(config.train.loss, without, LIMITS).reason


def test_weights_that_sum_to_0_fail(config: CheckpointConfig) -> None:
    result = gradient_balance(LossConfig(**dict.fromkeys(LOSS_TERMS, 0)), config.gradient_shares, LIMITS)
    assert not result.passed and "sum to 0" in result.reason and "loss.regression" in result.remedy


def test_term_that_was_switched_off_is_named_and_not_missed(config: CheckpointConfig) -> None:
    without = [{name: value for name, value in line.items() if "variance" not in name} for line in config.gradient_shares]
    result = gradient_balance(config.train.loss.model_copy(update={"variance": 0.0}), without, LIMITS)
    assert result.passed and "switched off: variance" in result.reason


def test_later_steps_do_not_count(config: CheckpointConfig) -> None:
    late = {"step": 200.0, "train/gradient_share_infonce": 1.0}
    assert not gradient_balance(config.train.loss, [*measured(config, {"infonce": 0.0}, {"infonce": 0.0}), late], LIMITS).passed


def test_model_of_an_older_version_that_recorded_nothing_fails_with_the_remedy(config: CheckpointConfig) -> None:
    older = CheckpointConfig.model_validate(config.model_dump(exclude={"gradient_shares"}))
    result = gradient_balance(older.train.loss, older.gradient_shares, LIMITS)
    assert not result.passed
    assert result.sentence == "no gradient shares were recorded: train again with this version"


@pytest.mark.parametrize("head", ["y_dec", "y_cos"])
@pytest.mark.parametrize(("pairwise", "passes"), [(0.94, True), (0.96, False), (NAN, False)])
def test_either_output_with_a_pairwise_cosine_over_the_line_has_collapsed(
    found: Evaluation, head: str, pairwise: float, passes: bool
) -> None:
    result = outright_collapse(found, LIMITS)
    assert result.passed and result.value < 0.9 and result.threshold == LIMITS.collapsed_pairwise == 0.95
    changed = replace(found, spreads=found.spreads | {head: replace(found.spreads[head], pairwise_cosine=pairwise)})
    result = outright_collapse(changed, LIMITS)
    assert (result.name, result.passed) == ("collapse", passes)
    assert result.reason.startswith("mean pairwise cosine of the outputs on val documents ")
    assert result.reason.endswith(". The outputs are nearly one vector") is not passes
    assert result.remedy == ("" if passes else CHECK_LOSS)


def running(config: CheckpointConfig, found: Evaluation, **changes: object) -> CheckedTraining:
    """A training of 100 steps after its first epoch, which recorded what `config` did."""
    given = CheckedTraining(config.train.loss, 0, 100, config.gradient_shares, found, LIMITS)
    return replace(given, **changes)


def test_the_balance_is_judged_once_step_50_is_recorded_and_in_a_shorter_training_at_once(
    config: CheckpointConfig, found: Evaluation
) -> None:
    first, last = config.gradient_shares
    judged = gradient_balance(config.train.loss, config.gradient_shares, LIMITS)
    assert early_loss_balance(running(config, found)) == judged
    assert early_loss_balance(running(config, found, gradient_shares=[first])) is None
    assert early_loss_balance(running(config, found, gradient_shares=[first], total_steps=51)) is None, "step 50 is still to come"
    at_once = early_loss_balance(running(config, found, gradient_shares=[first], total_steps=50))
    assert at_once == gradient_balance(config.train.loss, [first], LIMITS)
    assert (first["step"], last["step"]) == (0, 50)


def test_a_collapse_is_looked_for_after_the_first_epoch_alone(config: CheckpointConfig, found: Evaluation) -> None:
    assert early_collapse(running(config, found)) == outright_collapse(found, LIMITS)
    assert early_collapse(running(config, found, epoch=1)) is None


def test_a_training_is_told_only_what_can_be_judged_so_far(config: CheckpointConfig, found: Evaluation) -> None:
    assert [result.name for result in early_gates(running(config, found))] == ["loss_balance", "collapse"]
    assert [result.name for result in early_gates(running(config, found, epoch=1))] == ["loss_balance"]
    assert early_gates(running(config, found, epoch=1, gradient_shares=[])) == []
