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
from lvm.evaluation.evaluate import Evaluation, Reference, predict, score_baselines
from lvm.gates.model import CheckedModel, collapse, mean_vector_baseline, model_gates, moment_matching, reload_parity
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from tests.support.evaluations import checked, evaluation_of
from tests.support.trainings import trained

CPU = torch.device("cpu")
LIMITS = GateThresholds()
NAN = float("nan")
OF_OUTPUTS = {"mean_vector_baseline": mean_vector_baseline, "moment_matching": moment_matching, "collapse": collapse}
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
    assert [result.name for result in results] == ["reload_parity", "loss_balance", "mean_vector_baseline", "moment_matching", "collapse"]
    assert all(result.passed for result in results), results


def test_honest_model_keeps_its_spread_and_scale(evaluate: Evaluate, honest: tuple[torch.Tensor, torch.Tensor]) -> None:
    found = evaluate(*honest)
    for gate in (moment_matching, collapse):
        result = gate(checked(found))
        assert result.passed and result.value > 0.05, result
    skill = found.skill("cosine")
    assert mean_vector_baseline(checked(found)).passed is skill.above_zero()
    assert skill.value > 0, "it beats every baseline, if by little"


# mean_vector_baseline


@pytest.mark.parametrize("name", ["mean_vector", "copy_last", "context_mean", "ridge"])
def test_baseline_under_a_models_name_fails_mean_vector_baseline(
    evaluate: Evaluate, checkpoint: Checkpoint, context: torch.Tensor, name: str
) -> None:
    found = evaluate(checkpoint.baselines.predict(context)[name].clone())
    result = mean_vector_baseline(checked(found))
    assert not result.passed
    assert f"best baseline {found.best_baseline('cosine')}: skill" in result.reason
    assert "train longer, on more documents, or serve the baseline" in result.remedy
    if name == "ridge":
        assert found.skill("cosine").value == 0


def test_high_cosine_that_the_mean_vector_also_has_fails(
    dataset: Dataset, evaluate: Evaluate, ref: Reference, checkpoint: Checkpoint
) -> None:
    # Halfway from the mean vector to the answer beats every baseline; the mean vector itself beats none, whatever its cosine.
    mean = checkpoint.baselines.mean
    assert mean_vector_baseline(checked(evaluate((ref.targets + mean) / 2))).passed
    found = evaluate(mean.expand_as(ref.targets).clone() + 1e-4 * torch.randn(ref.targets.shape))
    assert found.model.cosine.mean() > 0.3
    assert not mean_vector_baseline(checked(found)).passed


def test_skill_without_enough_documents_for_an_interval_fails(evaluate: Evaluate, ref: Reference) -> None:
    found = evaluate(ref.targets)
    windows = replace(found.windows, docs=found.windows.docs % 4)
    result = mean_vector_baseline(checked(replace(found, windows=windows)))
    assert not result.passed
    assert "too few documents" in result.reason and "adds nothing" not in result.reason
    assert "give more documents" in result.remedy


# collapse


def test_constant_output_fails_collapse_and_the_baseline(evaluate: Evaluate, ref: Reference) -> None:
    torch.manual_seed(0)
    found = evaluate(torch.randn(ref.targets.shape[1]).expand_as(ref.targets).clone())
    assert passed(found) == {"mean_vector_baseline": False, "moment_matching": False, "collapse": False}
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
    assert not mean_vector_baseline(checked(only_decoder)).passed
    assert mean_vector_baseline(checked(only_cosine)).passed


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


def test_one_nan_cosine_fails_mean_vector_baseline(evaluate: Evaluate, ref: Reference) -> None:
    found = evaluate(ref.targets)
    cosine = found.model.cosine.copy()
    cosine[3] = NAN
    assert not mean_vector_baseline(checked(replace(found, model=replace(found.model, cosine=cosine)))).passed


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
