"""Each gate on a model passes an oracle and an honest model, and fails the one it was made for."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.windows import contexts, make_windows
from lvm.evaluation.evaluate import SKILLS, Evaluation, Reference, predict, score_baselines
from lvm.evaluation.intervals import MIN_DOCUMENTS, Interval
from lvm.gates.model import CheckedModel, baselines, collapse, model_gates, moment_matching, reload_parity
from lvm.gates.result import GateResult
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from tests.support.evaluations import checked, evaluation_of, with_skills
from tests.support.trainings import trained

CPU = torch.device("cpu")
LIMITS = GateThresholds()
NAN = float("nan")
OF_OUTPUTS = {"baselines": baselines, "moment_matching": moment_matching, "collapse": collapse}
"""The gates that read nothing but the outputs."""
Evaluate = Callable[..., Evaluation]


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset) -> Checkpoint:
    """A model trained for a few seconds."""
    return load_checkpoint(trained(dataset), CPU)


@pytest.fixture(scope="module")
def ref(dataset: Dataset, checkpoint: Checkpoint) -> Reference:
    """The validation windows with the baselines' scores."""
    windows = make_windows(dataset, "val", 3, 10_000, CPU)
    return score_baselines(dataset, windows, checkpoint.baselines, CPU)


@pytest.fixture(scope="module")
def context(dataset: Dataset, ref: Reference) -> torch.Tensor:
    """[N, 3, D]: what every model is given."""
    return torch.cat(list(contexts(dataset.vectors, ref.windows.targets, 3, CPU)))


@pytest.fixture(scope="module")
def honest(dataset: Dataset, checkpoint: Checkpoint, ref: Reference) -> tuple[torch.Tensor, torch.Tensor]:
    """The trained model's `(y_dec, y_cos)`."""
    return predict(checkpoint.model, dataset, ref.windows, CPU)


@pytest.fixture()
def evaluate(ref: Reference) -> Evaluate:
    """The evaluation of any two outputs [N, D] on those windows."""
    return partial(evaluation_of, ref)


def passed(found: Evaluation) -> dict[str, bool]:
    return {name: gate(checked(found)).passed for name, gate in OF_OUTPUTS.items()}


def test_oracle_passes_every_gate(evaluate: Evaluate, ref: Reference, checkpoint: Checkpoint) -> None:
    found = evaluate(ref.targets)
    results = model_gates(checkpoint, found, LIMITS)
    assert [result.name for result in results] == ["reload_parity", "loss_balance", "baselines", "moment_matching", "collapse"]
    assert all(result.passed for result in results), results


def test_honest_model_keeps_its_spread_and_scale(evaluate: Evaluate, honest: tuple[torch.Tensor, torch.Tensor]) -> None:
    found = evaluate(*honest)
    for gate in (moment_matching, collapse):
        result = gate(checked(found))
        assert result.passed and result.value > 0.05, result


# baselines

ABOVE, BELOW = Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01)
PERHAPS_BETTER, PERHAPS_WORSE = Interval(0.02, -0.01, 0.05), Interval(-0.02, -0.05, 0.01)
NO_INTERVAL = Interval(0.02, None, None)


def judged(evaluate: Evaluate, ref: Reference, others: Interval, **skills: Interval) -> GateResult:
    """The result for given skills; `others` in the metrics that are not named."""
    return baselines(checked(with_skills(evaluate(ref.targets), dict.fromkeys(SKILLS, others) | skills)))


@pytest.mark.parametrize("metric", SKILLS)
@pytest.mark.parametrize(
    ("others", "one", "severity", "value"),
    [
        (ABOVE, ABOVE, "ok", 0.01),
        (ABOVE, BELOW, "fail", -0.01),
        (ABOVE, PERHAPS_BETTER, "warn", 0.01),
        (ABOVE, PERHAPS_WORSE, "warn", 0.01),  # the value alone would refuse it
        (ABOVE, Interval(0.0, 0.0, 0.0), "warn", 0.01),  # as good as the baseline
        (ABOVE, Interval(NAN, NAN, NAN), "fail", NAN),
        (ABOVE, NO_INTERVAL, "fail", 0.0),
        (PERHAPS_BETTER, ABOVE, "warn", 0.01),
        (PERHAPS_WORSE, ABOVE, "warn", 0.01),
        (PERHAPS_BETTER, PERHAPS_BETTER, "fail", -0.01),  # the value alone would let it pass
        (PERHAPS_BETTER, BELOW, "fail", -0.01),
        (BELOW, ABOVE, "fail", -0.01),
        (NO_INTERVAL, NO_INTERVAL, "fail", 0.0),
    ],
)
def test_the_ends_of_any_of_the_four_intervals_decide(
    evaluate: Evaluate, ref: Reference, metric: str, others: Interval, one: Interval, severity: str, value: float
) -> None:
    result = judged(evaluate, ref, others, **{metric: one})
    assert (result.severity, result.passed) == (severity, severity != "fail")
    assert result.value == pytest.approx(value, nan_ok=True) and result.threshold == 0
    assert result.passed == (result.value > result.threshold)
    assert f"{metric} " in result.reason and str(one) in result.reason, "each is shown with its interval"
    assert bool(result.remedy) == (severity != "ok")


@pytest.mark.parametrize("metric", SKILLS)
def test_the_reason_names_what_is_worse_or_not_certain(evaluate: Evaluate, ref: Reference, metric: str) -> None:
    assert judged(evaluate, ref, ABOVE, **{metric: BELOW}).reason.endswith(f". The baseline is better in {metric}")
    unsure = judged(evaluate, ref, ABOVE, **{metric: PERHAPS_WORSE})
    assert unsure.reason.endswith(f". No certain gain in {metric}") and "use the baseline for what is not certain" in unsure.remedy
    assert judged(evaluate, ref, PERHAPS_BETTER).reason.endswith(". The model adds nothing to the baselines")


@pytest.mark.parametrize("name", ["mean_vector", "copy_last", "ridge"])
def test_baseline_under_a_models_name_fails_baselines(evaluate: Evaluate, checkpoint: Checkpoint, context: torch.Tensor, name: str) -> None:
    found = evaluate(checkpoint.baselines.predict(context)[name].clone())
    result = baselines(checked(found))
    assert not result.passed
    assert all(f"over {found.best_baseline(metric)}" in result.reason for metric in SKILLS)
    assert "train longer, on more documents, or serve the baseline" in result.remedy


def test_high_cosine_that_the_mean_vector_also_has_fails(
    dataset: Dataset, evaluate: Evaluate, ref: Reference, checkpoint: Checkpoint
) -> None:
    # Halfway from the mean vector to the answer beats every baseline; the mean vector itself beats none, whatever its cosine.
    mean = checkpoint.baselines.mean
    assert baselines(checked(evaluate((ref.targets + mean) / 2))).severity == "ok"
    found = evaluate(mean.expand_as(ref.targets).clone() + 1e-4 * torch.randn(ref.targets.shape))
    assert found.model.cosine.mean() > 0.3
    assert not baselines(checked(found)).passed


def test_skill_without_enough_documents_for_an_interval_fails(evaluate: Evaluate, ref: Reference) -> None:
    found = evaluate(ref.targets)
    windows = replace(found.windows, docs=found.windows.docs % 4)
    result = baselines(checked(replace(found, windows=windows)))
    assert not result.passed
    assert "too few documents" in result.reason and "adds nothing" not in result.reason
    assert f"give more documents: an interval needs {MIN_DOCUMENTS} or more in each evaluated split, and here are 4" in result.remedy


# collapse


def test_constant_output_fails_collapse_and_the_baseline(evaluate: Evaluate, ref: Reference) -> None:
    torch.manual_seed(0)
    found = evaluate(torch.randn(ref.targets.shape[1]).expand_as(ref.targets).clone())
    assert passed(found) == {"baselines": False, "moment_matching": False, "collapse": False}
    assert "nearly one vector: check the loss weights" in collapse(checked(found)).sentence


def test_mean_vector_with_a_little_noise_fails_collapse(evaluate: Evaluate, ref: Reference, checkpoint: Checkpoint) -> None:
    torch.manual_seed(0)
    found = evaluate(checkpoint.baselines.mean + 0.005 * torch.randn(ref.targets.shape))
    assert found.collapse()["y_dec_pairwise_cosine"] > 0.9
    assert not collapse(checked(found)).passed


def test_each_head_is_checked_apart(evaluate: Evaluate, ref: Reference, checkpoint: Checkpoint) -> None:
    constant = checkpoint.baselines.mean.expand_as(ref.targets).clone()
    constant += 1e-3 * torch.randn(constant.shape, generator=torch.Generator().manual_seed(0))
    only_decoder, only_cosine = evaluate(constant, ref.targets), evaluate(ref.targets, constant)
    for found in (only_decoder, only_cosine):
        assert not collapse(checked(found)).passed
        assert not moment_matching(checked(found)).passed
        assert not baselines(checked(found)).passed


def test_outputs_on_a_plane_fail_collapse_by_their_rank(evaluate: Evaluate, ref: Reference) -> None:
    centred = ref.targets - ref.targets.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    plane = centred @ directions[:3].T @ directions[:3]
    found = evaluate(plane)
    c = found.collapse()
    assert c["y_dec_pairwise_cosine"] < 0.2, "seen from pairs alone nothing is wrong"
    assert c["y_cos_effective_rank"] < LIMITS.cosine_effective_rank
    result = collapse(checked(found))
    assert not result.passed and "y_cos rank" in result.reason


def test_ridge_itself_is_not_called_collapsed_as_y_dec(evaluate: Evaluate, ref: Reference) -> None:
    found = evaluate(ref.ridge.clone(), ref.targets)
    assert collapse(checked(found)).passed
    assert found.collapse()["y_dec_pairwise_cosine"] > 0.6, "though any fixed line would have called it so"


# moment_matching


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.3, 2.0])
def test_y_dec_of_another_scale_fails_moment_matching_though_every_cosine_is_the_same(
    evaluate: Evaluate, honest: tuple[torch.Tensor, torch.Tensor], factor: float
) -> None:
    y_dec, y_cos = honest
    y_dec = y_dec / y_dec.norm(dim=-1).mean()  # the encoder's mean norm is 1
    right, wrong = evaluate(y_dec, y_cos), evaluate(factor * y_dec, y_cos)
    assert right.interval("cosine").value == pytest.approx(wrong.interval("cosine").value, abs=1e-6)
    assert moment_matching(checked(right)).passed
    result = moment_matching(checked(wrong))
    assert not result.passed
    assert result.value == pytest.approx(LIMITS.norm_ratio - abs(factor - 1), abs=0.01)
    assert (
        f"y_dec norm {factor:.2f} of the encoder's" in result.reason and "raise loss.moments, loss.variance or loss.norm" in result.remedy
    )
    assert collapse(checked(wrong)).passed


def test_lost_deviation_fails_moment_matching(evaluate: Evaluate, ref: Reference, checkpoint: Checkpoint) -> None:
    mean = checkpoint.baselines.mean
    shrunk = F.normalize(mean + 0.15 * (ref.targets - mean), dim=-1)
    found = evaluate(shrunk, ref.targets)
    c = found.collapse()
    assert c["y_dec_sigma_ratio"] < LIMITS.decoder_versus_ridge * c["ridge_sigma_ratio"]
    assert not moment_matching(checked(found)).passed


# Values that are not numbers


def broken(found: Evaluation, head: str, quantity: str) -> Evaluation:
    value = NAN if quantity in ("pairwise_cosine", "effective_rank", "norm") else getattr(found.spreads[head], quantity) * NAN
    return replace(found, spreads=found.spreads | {head: replace(found.spreads[head], **{quantity: value})})


@pytest.mark.parametrize("head", ["y_dec", "y_cos", "ridge", "target"])
@pytest.mark.parametrize("quantity", ["pairwise_cosine", "effective_rank"])
def test_a_spread_that_is_nan_fails_collapse(evaluate: Evaluate, ref: Reference, head: str, quantity: str) -> None:
    found = evaluate(ref.targets)
    assert collapse(checked(found)).passed
    result = collapse(checked(broken(found, head, quantity)))
    assert not result.passed and "check the loss weights" in result.remedy


@pytest.mark.parametrize(
    ("head", "quantity"), [("y_dec", "std"), ("y_cos", "std"), ("ridge", "std"), ("y_dec", "norm"), ("target", "norm")]
)
def test_a_moment_that_is_nan_fails_moment_matching(evaluate: Evaluate, ref: Reference, head: str, quantity: str) -> None:
    found = evaluate(ref.targets)
    assert moment_matching(checked(found)).passed
    result = moment_matching(checked(broken(found, head, quantity)))
    assert not result.passed and "raise loss.moments" in result.remedy


def test_one_nan_cosine_fails_baselines(evaluate: Evaluate, ref: Reference) -> None:
    found = evaluate(ref.targets)
    cosine = found.model.cosine.copy()
    cosine[3] = NAN
    assert not baselines(checked(replace(found, model=replace(found.model, cosine=cosine)))).passed


# reload_parity


@pytest.mark.parametrize(("parity", "passes"), [(0.0, True), (1e-4, True), (1.1e-4, False), (NAN, False), (float("inf"), False)])
def test_reload_parity_passes_up_to_its_tolerance(
    evaluate: Evaluate, ref: Reference, checkpoint: Checkpoint, parity: float, passes: bool
) -> None:
    result = reload_parity(CheckedModel(replace(checkpoint, parity=parity), evaluate(ref.targets), LIMITS))
    assert result.passed is passes
    assert result.threshold == LIMITS.parity == 1e-4


def test_thresholds_are_the_callers(
    evaluate: Evaluate, ref: Reference, checkpoint: Checkpoint, honest: tuple[torch.Tensor, torch.Tensor]
) -> None:
    found = evaluate(*honest)
    strict = GateThresholds(cosine_sigma_ratio=5, cosine_effective_rank=2)
    assert collapse(checked(found)).passed and not collapse(checked(found, strict)).passed
    assert moment_matching(checked(found)).passed and not moment_matching(checked(found, strict)).passed
    assert not reload_parity(CheckedModel(replace(checkpoint, parity=1e-5), found, GateThresholds(parity=1e-6))).passed
