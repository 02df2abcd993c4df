"""An ablation takes away exactly what it names, and a baseline under a model's name shows nothing of its own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.data.windows import Windows, make_windows
from lvm.errors import InputError
from lvm.evaluation.ablations import MetricDrop, ablated_rows, ablations, lags, predict_baselines
from lvm.models.baselines import STRONGEST, Baselines, fit_baselines

CPU = torch.device("cpu")
LENGTH = 4


class Rule(nn.Module):
    """A model whose two outputs are functions of the context [B, T, D]."""

    def __init__(self, decoder: Callable[[torch.Tensor], torch.Tensor], cosine: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.decoder, self.cosine = decoder, cosine

    def forward(self, context: torch.Tensor, return_both: bool) -> tuple[torch.Tensor, torch.Tensor]:
        assert return_both
        return self.decoder(context), F.normalize(self.cosine(context), dim=-1)


@pytest.fixture(scope="module")
def windows(dataset: Dataset) -> Windows:
    """Validation windows of real text."""
    return make_windows(dataset, "val", LENGTH, 10_000, CPU)


@pytest.fixture(scope="module")
def fitted(dataset: Dataset) -> Baselines:
    """The baselines at that context."""
    return fit_baselines(dataset, LENGTH, 10_000, CPU)


def evaluated(
    rule: Callable[[torch.Tensor], torch.Tensor], fitted: Baselines, dataset: Dataset, windows: Windows
) -> dict[str, dict[str, MetricDrop]]:
    return ablations(Rule(rule, rule), fitted, dataset, windows, CPU)  # type: ignore[arg-type]


def test_each_ablation_holds_the_rows_that_it_names(windows: Windows) -> None:
    rows, target = ablated_rows(windows), windows.targets[:, None]
    assert set(rows) == {"shuffle", "reverse", "cross_document", "last_alone", "lag 1", "lag 2", "lag 3", "lag 4"}
    assert np.array_equal(rows["reverse"], target - [1, 2, 3, 4])
    assert np.array_equal(np.sort(rows["shuffle"], 1), target - [4, 3, 2, 1])
    assert 0.9 < (rows["shuffle"] != target - [4, 3, 2, 1]).any(1).mean() < 1, "one order in 24 is the old one"
    assert np.array_equal(rows["last_alone"], target - 1)
    assert np.array_equal(rows["lag 1"], target - [4, 3, 2])
    assert np.array_equal(rows["lag 3"], target - [4, 2, 1])
    assert np.array_equal(rows["lag 4"], target - [3, 2, 1])


def test_a_context_of_another_document_keeps_only_the_last_chunk(dataset: Dataset, windows: Windows) -> None:
    rows = ablated_rows(windows)["cross_document"]
    assert np.array_equal(rows[:, -1], windows.targets - 1)
    owners = dataset.row_doc[rows]
    assert (owners[:, :-1] == owners[:, :1]).all() and (owners[:, 0] != windows.docs).all()
    assert (np.diff(rows[:, :-1], axis=1) == 1).all(), "a stretch as it stands there"
    assert np.array_equal(rows, ablated_rows(windows)["cross_document"]), "seeded"
    assert not np.array_equal(rows, ablated_rows(windows, seed=1)["cross_document"])


def test_a_model_of_the_last_chunk_uses_nothing_else(dataset: Dataset, windows: Windows, fitted: Baselines) -> None:
    found = evaluated(lambda context: context[:, -1], fitted, dataset, windows)
    for name in ("cross_document", "last_alone", "lag 2", "lag 3", "lag 4"):
        for drop in found[name].values():
            assert (drop.model.value, drop.model.low, drop.model.high) == (0, 0, 0), name
    for name in ("shuffle", "reverse", "lag 1"):
        assert found[name]["cosine"].model.above_zero(), name


def test_a_model_blind_to_order_loses_nothing_to_another_order(dataset: Dataset, windows: Windows, fitted: Baselines) -> None:
    found = evaluated(lambda context: context.mean(1), fitted, dataset, windows)
    for name in ("shuffle", "reverse"):
        assert found[name]["cosine"].model.value == pytest.approx(0, abs=1e-6)
        assert found[name]["cosine"].baseline.value > 0.003, "ridge weighs the last chunk most, and loses"
        assert found[name]["cosine"].excess.value < -0.003
    assert found["cross_document"]["cosine"].model.above_zero()


def test_a_baseline_under_a_models_name_has_no_loss_of_its_own(dataset: Dataset, windows: Windows, fitted: Baselines) -> None:
    def rule(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda context: predict_baselines(fitted, [context], CPU)[name]

    model = Rule(*(rule(STRONGEST[metric]) for metric in ("cosine", "recall_at_5")))
    found = ablations(model, fitted, dataset, windows, CPU)  # type: ignore[arg-type]
    for name, drops in found.items():
        assert (drops["cosine"].excess.low, drops["cosine"].excess.high) == (0, 0), name
        # y_cos is scaled to unit length, which may round a tie apart.
        assert drops["recall_at_5"].excess.value == pytest.approx(0, abs=0.005), name
    assert found["shuffle"]["cosine"].model.value > 0.003


def test_the_excess_is_the_difference_of_the_two_losses(dataset: Dataset, windows: Windows, fitted: Baselines) -> None:
    for drops in evaluated(lambda context: context.mean(1), fitted, dataset, windows).values():
        assert set(drops) == set(STRONGEST)
        for drop in drops.values():
            assert drop.excess.value == pytest.approx(drop.model.value - drop.baseline.value, abs=1e-6)


def test_what_a_short_context_lacks_counts_as_the_training_mean(fitted: Baselines) -> None:
    torch.manual_seed(0)
    context = torch.randn(5, 2, len(fitted.mean))
    found = predict_baselines(fitted, [context[:3], context[3:]], CPU)
    padded = torch.cat([fitted.mean.expand(5, LENGTH - 2, -1), context], 1)
    expected = fitted.predict(padded)
    assert list(found) == list(STRONGEST.values())
    for name, predicted in found.items():
        torch.testing.assert_close(predicted, expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (2, [1, 2]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (11, [1, 2, 3, 4, 5, 6, 7, 8, 11]),
        (16, [1, 2, 3, 4, 5, 6, 7, 8, 16]),
        (64, [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64]),
    ],
)
def test_near_lags_are_all_taken_away_and_far_ones_at_each_doubling(length: int, expected: list[int]) -> None:
    assert lags(length) == expected


def test_a_context_of_one_chunk_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"field 'context_length' is 1: .*give 2 or more"):
        ablated_rows(make_windows(dataset, "val", 1, 10_000, CPU))


def test_windows_of_one_document_are_refused(windows: Windows) -> None:
    with pytest.raises(InputError, match=r"all windows are from one document.*give more documents"):
        ablated_rows(replace(windows, docs=np.zeros_like(windows.docs)))


def test_a_sample_of_windows_keeps_the_pool_and_its_own_answers(windows: Windows) -> None:
    some = windows.at_most(50)
    assert len(some.answer) == len(some.docs) == len(some.excluded) == 50
    place = np.searchsorted(windows.answer, some.answer)
    assert np.array_equal(windows.answer[place], some.answer) and np.array_equal(windows.docs[place], some.docs)
    assert np.array_equal(windows.excluded[place], some.excluded) and some.pool is windows.pool
    assert np.array_equal(some.answer, windows.at_most(50).answer)
    assert windows.at_most(len(windows.answer)) is windows
