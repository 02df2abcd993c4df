"""An evaluation gives an oracle full marks, a baseline no skill, and every number it needs for a report."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ModelConfig
from lvm.data.dataset import Dataset
from lvm.data.windows import contexts, make_windows
from lvm.evaluation.evaluate import SKILLS, Evaluation, Reference, Scores, evaluate, predict, score, score_baselines
from lvm.evaluation.intervals import document_interval
from lvm.models import build_predictor
from lvm.models.baselines import Baselines, fit_baselines
from tests.support.closed_forms import random_baselines
from tests.support.planted import grown, planted

Function = Callable[[torch.Tensor], torch.Tensor]
DIM, LENGTH = 8, 4
CPU = torch.device("cpu")
# A slow rotation: the order of a context tells where it is going.
TURN = torch.linalg.matrix_exp(0.5 * torch.triu(torch.ones(DIM, DIM), 1).sub(torch.tril(torch.ones(DIM, DIM), -1))).double().numpy()


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    documents = grown(lambda x, rng: 0.9 * TURN @ x[-1] + 0.3 * rng.normal(size=DIM), dim=DIM)
    return planted(tmp_path_factory.mktemp("turning"), [document + 0.3 for document in documents])


@pytest.fixture(scope="module")
def fitted(turning: Dataset) -> Baselines:
    return fit_baselines(turning, LENGTH, 1000, CPU)


@pytest.fixture(scope="module")
def ref(turning: Dataset, fitted: Baselines) -> Reference:
    return score_baselines(turning, make_windows(turning, "val", LENGTH, 1000, CPU), fitted, CPU)


class Rule(nn.Module):
    """A model whose two outputs are functions of the context [B, T, D]."""

    def __init__(self, decoder: Function, cosine: Function | None = None) -> None:
        super().__init__()
        self.decoder, self.cosine = decoder, cosine or decoder

    def forward(self, context: torch.Tensor, return_both: bool) -> tuple[torch.Tensor, torch.Tensor]:
        assert return_both
        return self.decoder(context), F.normalize(self.cosine(context), dim=-1)


def oracle(dataset: Dataset) -> Rule:
    """Looks the last chunk up in the dataset and returns the one that follows it."""
    stored = torch.from_numpy(np.array(dataset.vectors))
    return Rule(lambda context: stored[torch.cdist(context[:, -1], stored).argmin(1) + 1])


def evaluated(model: nn.Module, dataset: Dataset, ref: Reference) -> Evaluation:
    return evaluate(model, dataset, "val", ref, CPU)  # type: ignore[arg-type]


def test_an_oracle_gets_full_marks(turning: Dataset, ref: Reference) -> None:
    found = evaluated(oracle(turning), turning, ref)
    metrics = found.metrics()
    assert metrics["cosine"].value == pytest.approx(1, abs=1e-5)
    for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr"):
        assert metrics[name].value == 1
    for metric in SKILLS:
        assert metrics[f"skill_{metric}"].above_zero()
    collapse = found.collapse()
    for quantity in ("effective_rank", "sigma_ratio", "pairwise_cosine", "norm"):
        assert collapse[f"y_dec_{quantity}"] == pytest.approx(collapse[f"target_{quantity}"], rel=1e-5)


def test_its_opposite_gets_none(turning: Dataset, ref: Reference) -> None:
    true = oracle(turning)
    metrics = evaluated(Rule(lambda context: -true.decoder(context)), turning, ref).metrics()
    assert metrics["cosine"].value == pytest.approx(-1, abs=1e-5)
    assert metrics["recall_at_10"].value < 0.05
    assert metrics["skill_cosine"].high < 0  # type: ignore[operator]


def test_the_best_baseline_has_exactly_no_skill_against_itself(turning: Dataset, ref: Reference, fitted: Baselines) -> None:
    some = evaluated(oracle(turning), turning, ref)
    cosine, recall = some.best_baseline("cosine"), some.best_baseline("recall_at_5")
    model = Rule(lambda context: fitted.predict(context)[cosine], lambda context: fitted.predict(context)[recall])
    found = evaluated(model, turning, ref)
    skill = found.skill("cosine")
    assert (skill.value, skill.low, skill.high) == (0, 0, 0)
    assert not skill.above_zero()
    # y_cos is scaled to unit length, which may round a tie apart.
    assert found.skill("recall_at_5").value == pytest.approx(0, abs=0.005)


def test_another_baseline_has_negative_skill(turning: Dataset, ref: Reference, fitted: Baselines) -> None:
    found = evaluated(Rule(lambda context: fitted.predict(context)["mean_vector"]), turning, ref)
    assert found.best_baseline("cosine") != "mean_vector"
    assert found.skill("cosine").high < 0  # type: ignore[operator]


def test_the_best_baseline_is_chosen_for_each_metric_apart(turning: Dataset, ref: Reference) -> None:
    found = evaluated(oracle(turning), turning, ref)
    for metric in SKILLS:
        means = {name: float(scores.quantity(metric).mean()) for name, scores in found.baselines.items()}
        assert means[found.best_baseline(metric)] == max(means.values())
    doctored = dict(found.baselines)
    doctored["mean_vector"] = replace(doctored["mean_vector"], ranks=np.ones_like(doctored["mean_vector"].ranks))
    changed = replace(found, baselines=doctored)
    assert changed.best_baseline("mrr") == "mean_vector"
    assert changed.best_baseline("cosine") == found.best_baseline("cosine")


def test_skill_is_the_paired_difference_with_an_interval_over_documents(turning: Dataset, ref: Reference) -> None:
    found = evaluated(Rule(lambda context: context[:, -1]), turning, ref)
    for metric in SKILLS:
        best = found.baselines[found.best_baseline(metric)]
        difference = found.model.quantity(metric) - best.quantity(metric)
        assert found.skill(metric) == document_interval(difference, turning.row_doc[found.windows.targets])


def test_what_is_logged_after_an_epoch_are_the_values_of_the_report(turning: Dataset, ref: Reference) -> None:
    found = evaluated(oracle(turning), turning, ref)
    assert found.values() == pytest.approx({name: interval.value for name, interval in found.metrics().items()}, abs=1e-6)
    assert {f"skill_{metric}" for metric in SKILLS} <= set(found.values())


def test_a_model_blind_to_order_loses_nothing_to_a_shuffle_and_another_does(turning: Dataset, ref: Reference) -> None:
    blind = evaluated(Rule(lambda context: context.mean(1)), turning, ref)
    np.testing.assert_allclose(blind.shuffled_cosine, blind.model.cosine, atol=1e-5)
    assert blind.shuffle_drop().value == pytest.approx(0, abs=1e-6)
    assert evaluated(oracle(turning), turning, ref).shuffle_drop().above_zero()


def test_a_shuffle_reorders_each_context_and_mixes_none(turning: Dataset, ref: Reference) -> None:
    seen: list[torch.Tensor] = []

    def watch(context: torch.Tensor) -> torch.Tensor:
        seen.append(context)
        return context[:, -1]

    predict(Rule(watch, lambda context: context[:, -1]), turning, ref.windows, CPU, shuffle=True)  # type: ignore[arg-type]
    shuffled, plain = torch.cat(seen), torch.cat(list(contexts(turning.vectors, ref.windows.targets, LENGTH, CPU)))
    assert torch.equal(shuffled.sort(1).values, plain.sort(1).values)
    moved = (shuffled != plain).any(-1).any(-1).float().mean()
    assert moved > 0.8  # one order in 24 is the old one
    assert shuffled[:, :, 0].argmax(1).unique().numel() == LENGTH


def test_an_evaluation_repeats_exactly_and_dropout_is_off(turning: Dataset, ref: Reference) -> None:
    torch.manual_seed(0)
    model = build_predictor(ModelConfig(arch="gru", dim=DIM, width=64, dropout=0.5), torch.zeros(DIM), torch.ones(DIM)).train()
    nn.init.normal_(model.decoder_residual.fc2.weight)
    first, second = evaluated(model, turning, ref), evaluated(model, turning, ref)
    assert np.array_equal(first.model.cosine, second.model.cosine)
    assert np.array_equal(first.shuffled_cosine, second.shuffled_cosine)
    assert first.metrics() == second.metrics()


def test_y_dec_is_evaluated_by_cosine_and_y_cos_by_rank(turning: Dataset, ref: Reference) -> None:
    true = oracle(turning)
    only_decoder = evaluated(Rule(true.decoder, lambda context: -true.decoder(context)), turning, ref).metrics()
    only_cosine = evaluated(Rule(lambda context: -true.decoder(context), true.decoder), turning, ref).metrics()
    assert only_decoder["cosine"].value > 0.99 and only_decoder["recall_at_5"].value < 0.05
    assert only_cosine["cosine"].value < -0.99 and only_cosine["recall_at_5"].value == 1


def test_scores_of_the_baselines_are_those_of_their_predictions(turning: Dataset, ref: Reference, fitted: Baselines) -> None:
    (context,) = contexts(turning.vectors, ref.windows.targets, LENGTH, CPU, batch=10_000)
    targets = turning.vectors[ref.windows.targets]
    pool = ref.pool.numpy()
    position = np.arange(len(pool))
    offered = (position < ref.windows.excluded[:, :1]) | (position >= ref.windows.excluded[:, 1:])
    for name, predicted in fitted.predict(context).items():
        y = predicted.numpy()
        cosine = (y * targets).sum(1) / np.linalg.norm(y, axis=1) / np.linalg.norm(targets, axis=1)
        np.testing.assert_allclose(ref.scores[name].cosine, cosine, atol=1e-5)
        products = y @ pool.T
        own = products[np.arange(len(y)), ref.windows.answer]
        ranks = ((products >= own[:, None]) & offered).sum(1)
        assert np.abs(ref.scores[name].ranks - ranks).max() <= 1  # rounding may swap two neighbours
    assert torch.equal(ref.ridge, fitted.predict(context)["ridge"])


def test_copying_the_last_chunk_is_not_beaten_by_that_chunk_itself(turning: Dataset, ref: Reference) -> None:
    fair = ref.scores["copy_last"].ranks
    (context,) = contexts(turning.vectors, ref.windows.targets, LENGTH, CPU, batch=10_000)
    nothing_excluded = replace(ref.windows, excluded=np.zeros_like(ref.windows.excluded))
    unfair = score(context[:, -1], context[:, -1], ref.targets, ref.pool, nothing_excluded).ranks
    assert (unfair > fair).all()


def test_quantities_are_read_off_the_ranks() -> None:
    scores = Scores(np.array([0.1, 0.2, 0.3, 0.4], np.float32), np.array([1, 4, 5, 6]))
    assert scores.quantity("cosine").tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert scores.quantity("recall_at_1").tolist() == [1, 0, 0, 0]
    assert scores.quantity("recall_at_5").tolist() == [1, 1, 1, 0]
    assert scores.quantity("recall_at_10").tolist() == [1, 1, 1, 1]
    assert scores.quantity("mrr").tolist() == pytest.approx([1, 1 / 4, 1 / 5, 1 / 6])


def test_a_constant_model_shows_as_collapsed(turning: Dataset, ref: Reference) -> None:
    found = evaluated(Rule(lambda context: torch.ones(len(context), DIM)), turning, ref)
    collapse = found.collapse()
    for head in ("y_dec", "y_cos"):
        assert collapse[f"{head}_pairwise_cosine"] == pytest.approx(1, abs=1e-6)
        assert collapse[f"{head}_sigma_ratio"] == pytest.approx(0, abs=1e-6)
        assert collapse[f"{head}_effective_rank"] < 0.3
    assert (collapse["target_sigma_ratio"], collapse["target_effective_rank"]) == (pytest.approx(1), pytest.approx(1))


def test_a_model_of_nan_gains_no_recall(turning: Dataset, ref: Reference) -> None:
    nan = torch.full((len(ref.targets), DIM), float("nan"))
    found = score(nan, nan, ref.targets, ref.pool, ref.windows)
    assert found.quantity("recall_at_10").max() == 0


@pytest.mark.parametrize("few", [False, True])
def test_the_summary_is_json_and_holds_every_number_of_a_report(turning: Dataset, fitted: Baselines, few: bool) -> None:
    windows = make_windows(turning, "val", LENGTH, 1000, CPU)
    if few:
        keep = np.isin(windows.docs, np.unique(windows.docs)[:2])
        windows = replace(windows, answer=windows.answer[keep], docs=windows.docs[keep], excluded=windows.excluded[keep])
    found = evaluated(oracle(turning), turning, score_baselines(turning, windows, fitted, CPU))
    summary = found.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    plain = {"cosine", "recall_at_1", "recall_at_5", "recall_at_10", "mrr"}
    names = plain | {"skill_cosine", "skill_recall_at_1", "skill_recall_at_5", "skill_mrr", "shuffle_drop"}
    assert set(summary["metrics"]) == names
    assert summary["best_baseline"] == {metric: found.best_baseline(metric) for metric in SKILLS}
    for name, interval in summary["metrics"].items():
        expected = found.metrics()[name]
        assert interval == {"value": expected.value, "low": expected.low, "high": expected.high}
        assert (interval["low"] is None) == few
    assert set(summary["baselines"]) == set(found.baselines)
    for name, values in summary["baselines"].items():
        assert values["recall_at_5"] == pytest.approx(float((found.baselines[name].ranks <= 5).mean()))
    pool = summary["pool"]
    assert (pool["size"], pool["sha256"], pool["queries"]) == (len(windows.pool), windows.pool_hash, len(windows.answer))
    assert pool["documents"] == (2 if few else len(turning.docs("val")))
    assert 0 < pool["chance_recall_at_5"] < 0.1
    assert summary["collapse"] == found.collapse()
    sums = summary["by_document"]
    for name in ("cosine", "recall_at_1", "recall_at_5", "mrr"):
        expected = [float(found.model.quantity(name)[windows.docs == doc].sum()) for doc in np.unique(windows.docs)]
        assert sums[name] == pytest.approx(expected, rel=1e-5)
    assert sums["windows"] == [float((windows.docs == doc).sum()) for doc in np.unique(windows.docs)]
    assert (summary["split"], summary["context_length"]) == ("val", LENGTH)


def test_on_real_text_every_baseline_gives_finite_scores_in_their_known_order(dataset: Dataset) -> None:
    rows = dataset.vectors[dataset.rows("train")]
    mean = torch.from_numpy(rows.mean(0))
    fitted = random_baselines(mean, LENGTH)
    decays = {"ewma": {"decay": torch.tensor(0.7)}, "centred_ewma": {"decay": torch.tensor(0.6)}}
    plain = replace(fitted, parameters=fitted.parameters | decays)
    scores = score_baselines(dataset, make_windows(dataset, "val", LENGTH, 1000, CPU), plain, CPU).scores
    cosine = {name: float(found.cosine.mean()) for name, found in scores.items()}
    assert all(np.isfinite(found.cosine).all() and found.ranks.min() >= 1 for found in scores.values())
    assert cosine["ewma"] > cosine["copy_last"] + 0.03
    assert cosine["ewma"] > cosine["mean_vector"] + 0.01
    recall = {name: float(found.quantity("recall_at_5").mean()) for name, found in scores.items()}
    assert recall["centred_ewma"] > recall["mean_vector"] + 0.03
