"""A model is chosen or promoted because it is better on the same windows of unseen documents, and never by accident."""

import copy
import hashlib
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lvm.config import SplitConfig
from lvm.data.dataset import Dataset
from lvm.errors import InputError
from lvm.evaluation import compare as compare_module
from lvm.evaluation.compare import better, choose, compare, paired_differences, trained_on
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.evaluation.intervals import Interval
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from tests.support.trainings import trained

CPU = torch.device("cpu")
METRICS = ("cosine", "recall_at_1", "recall_at_5", "mrr")


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset) -> Checkpoint:
    """A trained model."""
    return load_checkpoint(trained(dataset), CPU)


def summary(rng: np.random.Generator, pool: str = "a", documents: int = 12, **means: float) -> dict[str, Any]:
    """The part of an evaluation's summary that a choice reads: `documents` documents of 50 windows, with these means.

    Two of them differ by the difference of their means, give or take .003 a document.
    """
    metrics = {name: {"value": means.get(name, 0.0)} for name in METRICS}
    sums = {name: (50 * (found["value"] + rng.normal(0, 0.002, documents))).tolist() for name, found in metrics.items()}
    windows = {"windows": [50.0] * documents}
    return {"context_length": 8, "pool": {"sha256": pool}, "metrics": metrics, "by_document": windows | sums}


def chosen(**summaries: dict[str, Any]) -> str:
    """The choice, which must not depend on the order in which the models come."""
    choices = {choose(dict(order)) for order in permutations(summaries.items())}
    assert len(choices) == 1
    return choices.pop()


def interval(low: float | None, high: float | None) -> Interval:
    """An interval with these ends."""
    return Interval(((low or 0.0) + (high or 0.0)) / 2, low, high)


UP, DOWN, EVEN, NONE = interval(0.1, 0.2), interval(-0.2, -0.1), interval(-0.1, 0.2), interval(None, None)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([UP, UP, UP, UP], True),
        ([UP, EVEN, EVEN, EVEN], True),
        ([EVEN, EVEN, EVEN, UP], True),
        ([EVEN, EVEN, EVEN, EVEN], False),
        ([UP, UP, UP, DOWN], False),
        ([DOWN, EVEN, EVEN, EVEN], False),
        ([NONE, NONE, NONE, NONE], False),
        ([], False),
        ([interval(0.0, 0.1)], False),
        ([UP, interval(-0.1, 0.0)], True),
    ],
)
def test_a_model_is_better_when_it_is_certainly_ahead_in_something_and_certainly_behind_in_nothing(
    differences: list[Interval], expected: bool
) -> None:
    assert better(differences) is expected


def test_a_model_that_another_one_is_better_than_is_not_chosen_whatever_its_recall() -> None:
    rng = np.random.default_rng(0)
    first = summary(rng, cosine=0.02, recall_at_5=0.1, recall_at_1=0.05)
    lucky = summary(rng, cosine=0.01, recall_at_5=0.1003, recall_at_1=0.05)
    assert chosen(lstm=first, mamba2=lucky, transformer=summary(rng)) == "lstm"


def test_recall_decides_between_models_each_of_which_is_ahead_in_something() -> None:
    rng = np.random.default_rng(0)
    assert chosen(lstm=summary(rng, cosine=0.02), mamba2=summary(rng, recall_at_5=0.02), gru=summary(rng, cosine=-0.02)) == "mamba2"


def test_recall_decides_between_models_that_nothing_tells_apart_and_cosine_where_recall_is_equal() -> None:
    rng = np.random.default_rng(0)
    assert chosen(lstm=summary(rng, cosine=0.0002), gru=summary(rng, recall_at_5=0.0001)) == "gru"
    assert chosen(lstm=summary(rng, cosine=0.0002, recall_at_5=0.1), gru=summary(rng, recall_at_5=0.1)) == "lstm"


def test_with_too_few_documents_no_model_is_better_and_recall_decides() -> None:
    rng = np.random.default_rng(0)
    assert chosen(lstm=summary(rng, documents=2, cosine=0.9), gru=summary(rng, documents=2, recall_at_5=0.1)) == "gru"


def test_a_model_alone_is_chosen_even_without_skill() -> None:
    assert chosen(lstm=summary(np.random.default_rng(0), cosine=-0.5, recall_at_5=-0.9)) == "lstm"


def test_models_that_beat_each_other_in_a_circle_are_chosen_among_by_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "better", lambda differences: True)
    rng = np.random.default_rng(0)
    assert chosen(lstm=summary(rng), gru=summary(rng, recall_at_5=0.1)) == "gru"


def test_pairing_takes_out_what_is_hard_for_both() -> None:
    hard = np.linspace(-40, 40, 12)
    first, second = (summary(np.random.default_rng(seed), cosine=mean) for seed, mean in ((0, 0.01), (1, 0.0)))
    for found in (first, second):
        found["by_document"]["cosine"] = (np.array(found["by_document"]["cosine"]) + hard).tolist()
    difference = paired_differences(first["by_document"], second["by_document"])["cosine"]
    assert difference.above_zero() and difference.value == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize(
    "other",
    [{"pool": {"sha256": "b"}}, {"context_length": 16}, {"by_document": {"windows": [49.0] * 12} | dict.fromkeys(METRICS, [0.0] * 12)}],
)
def test_models_that_were_evaluated_on_different_windows_are_refused_by_name(other: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"lstm and gru were evaluated on different windows.*one dataset at one context_length"):
        choose({"lstm": summary(rng), "gru": summary(rng) | other})


def test_summaries_of_evaluations_are_what_the_choice_reads(dataset: Dataset, checkpoint: Checkpoint) -> None:
    found = evaluate_checkpoint(dataset, checkpoint, "val")
    worse = replace(found, model=replace(found.model, cosine=found.model.cosine - 0.5 - 0.1 * (found.windows.docs % 2)))
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


def test_a_model_differs_from_itself_by_exactly_nothing_and_is_not_better(dataset: Dataset, checkpoint: Checkpoint) -> None:
    found = compare(dataset, checkpoint, replace(checkpoint, model=copy.deepcopy(checkpoint.model)))
    assert found.differences == dict.fromkeys(METRICS, Interval(0.0, 0.0, 0.0))
    assert not found.better


def test_a_better_challenger_is_above_zero_and_a_worse_one_below_by_as_much(dataset: Dataset, checkpoint: Checkpoint) -> None:
    worse = without_skill(checkpoint)
    up, down = compare(dataset, checkpoint, worse), compare(dataset, worse, checkpoint)
    gain, loss = up.differences["cosine"], down.differences["cosine"]
    assert up.better and not down.better
    assert gain.above_zero() and loss.below_zero() and gain.value == pytest.approx(-loss.value) and gain.value > 0.05
    assert up.differences["mrr"] == Interval(0.0, 0.0, 0.0), "the cosine head is the same"
    assert up.documents == len(dataset.docs("val")) and not up.left_out


def test_promotion_and_the_choice_in_a_flow_see_the_same_differences(dataset: Dataset, checkpoint: Checkpoint) -> None:
    worse = without_skill(checkpoint)
    first, second = (evaluate_checkpoint(dataset, model, "val").summary()["by_document"] for model in (checkpoint, worse))
    assert compare(dataset, checkpoint, worse).differences == paired_differences(first, second)


def test_test_documents_have_no_say(dataset: Dataset, checkpoint: Checkpoint) -> None:
    vectors = np.array(dataset.vectors)
    vectors[dataset.rows("test")] = vectors[dataset.rows("test")][::-1]
    worse = without_skill(checkpoint)
    assert compare(replace(dataset, vectors=vectors), checkpoint, worse) == compare(dataset, checkpoint, worse)


def divided(checkpoint: Checkpoint, splits: SplitConfig | None) -> Checkpoint:
    """The model as if it had been trained on another dataset, whose documents were divided like this."""
    return replace(checkpoint, config=checkpoint.config.model_copy(update={"dataset_digest": "another", "splits": splits}))


def test_documents_that_the_champion_was_trained_on_are_found_by_its_split_settings(dataset: Dataset, checkpoint: Checkpoint) -> None:
    val, splits = dataset.docs("val"), dataset.manifest.splits
    assert checkpoint.config.splits == splits
    assert trained_on(dataset, divided(checkpoint, splits)).size == 0, "a document stays in its split when the corpus grows"
    assert trained_on(dataset, divided(checkpoint, None)).tolist() == val.tolist(), "not known: any of them"
    more_val = splits.model_copy(update={"val": 0.3})
    assert trained_on(dataset, divided(checkpoint, more_val)).size == 0, "its validation documents include ours"
    shifted = splits.model_copy(update={"test": 0.05, "val": 0.09})
    seen = trained_on(dataset, divided(checkpoint, shifted))
    places = {doc: int.from_bytes(hashlib.sha256(dataset.doc_ids[doc].encode()).digest()[:7], "big") / 2**56 for doc in val}
    assert seen.tolist() == [doc for doc in val if places[doc] >= 0.14] and 0 < len(seen) < len(val)


def test_the_champion_is_compared_only_on_documents_that_it_was_not_trained_on(
    dataset: Dataset, checkpoint: Checkpoint, monkeypatch
) -> None:
    val = dataset.docs("val")
    monkeypatch.setattr(compare_module, "trained_on", lambda dataset, model: val[:1])
    found = compare(dataset, checkpoint, without_skill(checkpoint))
    assert (found.documents, found.left_out) == (len(val) - 1, 1)
    assert "1 more were left out: the champion's split settings put them into train" in str(found)
    vectors = np.array(dataset.vectors)
    rows = np.isin(dataset.row_doc, val[:1])
    vectors[rows] = vectors[rows][::-1]
    assert compare(replace(dataset, vectors=vectors), checkpoint, without_skill(checkpoint)) == found


def test_a_champion_that_may_have_seen_everything_is_not_compared_and_the_reason_names_the_remedy(
    dataset: Dataset, checkpoint: Checkpoint
) -> None:
    found = compare(dataset, checkpoint, divided(without_skill(checkpoint), None))
    assert not found.better and found.differences == {} and found.documents == 0
    assert "not comparable" in str(found) and "keep the split settings, give more documents, or move the champion away" in str(found)


def test_champion_of_another_encoder_is_refused_with_the_remedy(dataset: Dataset, checkpoint: Checkpoint) -> None:
    recipe = checkpoint.config.recipe.model_copy(update={"pooling": "cls"})
    champion = replace(checkpoint, config=checkpoint.config.model_copy(update={"recipe": recipe}))
    with pytest.raises(InputError, match=r"the current champion; move it away to start anew: .*pooling: cls against mean"):
        compare(dataset, checkpoint, champion)
