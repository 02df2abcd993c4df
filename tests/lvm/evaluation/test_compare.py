"""The choice among models follows skill where it differs, retrieval where it does not, and never an accident."""

import copy
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lvm.data.dataset import Dataset
from lvm.errors import InputError
from lvm.evaluation.compare import choose, paired_difference
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.evaluation.intervals import Interval
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from tests.support.trainings import trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset) -> Checkpoint:
    """A trained model."""
    return load_checkpoint(trained(dataset), CPU)


def summary(cosine: tuple[float, float | None, float | None], recall: float) -> dict[str, Any]:
    """The part of an evaluation's summary that a choice reads."""
    names = ("value", "low", "high")
    skill = {
        "skill_cosine": dict(zip(names, cosine, strict=True)),
        "skill_recall_at_5": dict(zip(names, (recall, None, None), strict=True)),
    }
    return {"metrics": skill}


def chosen(**summaries: dict[str, Any]) -> str:
    """The choice, which must not depend on the order in which the models come."""
    choices = {choose(dict(order)) for order in permutations(summaries.items())}
    assert len(choices) == 1
    return choices.pop()


def test_the_highest_skill_in_cosine_wins_when_no_interval_touches_its_own() -> None:
    best = summary((0.02, 0.015, 0.025), recall=-0.05)
    assert (
        chosen(lstm=summary((0.01, 0.005, 0.014), recall=0.05), mamba2=best, transformer=summary((0.0, -0.01, 0.01), recall=0.09))
        == "mamba2"
    )


def test_recall_decides_between_models_whose_intervals_touch() -> None:
    leader = summary((0.02, 0.01, 0.03), recall=0.01)
    second = summary((0.012, 0.002, 0.022), recall=0.02)
    far = summary((0.001, -0.005, 0.007), recall=0.09)
    assert chosen(lstm=leader, mamba2=second, transformer=far) == "mamba2"


def test_touching_is_decided_against_the_leader_alone() -> None:
    leader = summary((0.03, 0.025, 0.035), recall=0.0)
    middle = summary((0.024, 0.018, 0.030), recall=0.01)
    last = summary((0.015, 0.010, 0.020), recall=0.09)  # touches the middle one, not the leader
    assert chosen(lstm=leader, mamba2=middle, transformer=last) == "mamba2"


def test_intervals_that_share_one_end_touch() -> None:
    assert chosen(lstm=summary((0.03, 0.02, 0.04), recall=0.0), gru=summary((0.01, 0.0, 0.02), recall=0.1)) == "gru"


def test_without_intervals_every_model_is_tied_and_recall_decides() -> None:
    assert chosen(lstm=summary((0.9, None, None), recall=0.0), gru=summary((0.1, None, None), recall=0.1)) == "gru"


def test_equal_recall_leaves_it_to_the_cosine() -> None:
    assert chosen(lstm=summary((0.021, 0.01, 0.03), recall=0.02), gru=summary((0.02, 0.01, 0.03), recall=0.02)) == "lstm"


def test_a_model_alone_is_chosen_even_without_skill() -> None:
    assert chosen(lstm=summary((-0.5, -0.6, -0.4), recall=-0.9)) == "lstm"


def test_summaries_of_evaluations_are_what_the_choice_reads(dataset: Dataset, checkpoint: Checkpoint) -> None:
    found = evaluate_checkpoint(dataset, checkpoint, "val")
    worse = replace(found, model=replace(found.model, cosine=found.model.cosine - 0.5))
    assert chosen(good=found.summary(), bad=worse.summary()) == "good"


def without_skill(checkpoint: Checkpoint) -> Checkpoint:
    """The same model with a decoder head that copies the last chunk."""
    model = copy.deepcopy(checkpoint.model)
    with torch.no_grad():
        model.decoder_lags.weight.zero_()
        model.decoder_lags.weight[0] = 1
    nn.init.zeros_(model.decoder_residual.fc2.weight)
    nn.init.zeros_(model.decoder_residual.fc2.bias)
    return replace(checkpoint, model=model)


def test_model_differs_from_itself_by_exactly_nothing(dataset: Dataset, checkpoint: Checkpoint) -> None:
    difference = paired_difference(dataset, checkpoint, replace(checkpoint, model=copy.deepcopy(checkpoint.model)))
    assert difference == Interval(0.0, 0.0, 0.0)
    assert not difference.above_zero()


def test_a_better_challenger_is_above_zero_and_a_worse_one_below_by_as_much(dataset: Dataset, checkpoint: Checkpoint) -> None:
    worse = without_skill(checkpoint)
    gain, loss = paired_difference(dataset, checkpoint, worse), paired_difference(dataset, worse, checkpoint)
    assert gain.above_zero() and not loss.above_zero()
    assert gain.value == pytest.approx(-loss.value) and gain.value > 0.05
    assert loss.high is not None and loss.high < 0


def test_the_difference_is_paired_over_the_validation_windows(dataset: Dataset, checkpoint: Checkpoint) -> None:
    worse = without_skill(checkpoint)
    better_found, worse_found = evaluate_checkpoint(dataset, checkpoint, "val"), evaluate_checkpoint(dataset, worse, "val")
    difference = paired_difference(dataset, checkpoint, worse)
    assert difference.value == pytest.approx(float((better_found.model.cosine - worse_found.model.cosine).mean()), abs=1e-6)
    apart = [better_found.interval("cosine"), worse_found.interval("cosine")]
    assert difference.high - difference.low < max(one.high - one.low for one in apart), "pairing takes the documents' own difficulty out"  # type: ignore[operator]


def test_test_documents_have_no_say(dataset: Dataset, checkpoint: Checkpoint) -> None:
    vectors = np.array(dataset.vectors)
    vectors[dataset.rows("test")] = vectors[dataset.rows("test")][::-1]
    worse = without_skill(checkpoint)
    assert paired_difference(replace(dataset, vectors=vectors), checkpoint, worse) == paired_difference(dataset, checkpoint, worse)


def test_champion_of_another_encoder_is_refused_with_the_remedy(dataset: Dataset, checkpoint: Checkpoint) -> None:
    recipe = checkpoint.config.recipe.model_copy(update={"pooling": "cls"})
    champion = replace(checkpoint, config=checkpoint.config.model_copy(update={"recipe": recipe}))
    with pytest.raises(InputError, match=r"the current champion; move it away to start anew: .*pooling: cls against mean"):
        paired_difference(dataset, checkpoint, champion)
