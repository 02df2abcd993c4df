"""Figures are readable PNG files that show the numbers of the evaluation."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lvm.config import ARCHITECTURES
from lvm.data.dataset import Dataset
from lvm.evaluation.evaluate import SKILLS, Evaluation, evaluate_checkpoint
from lvm.evaluation.explain import explain
from lvm.models.checkpoint import Checkpoint, load_checkpoint
from lvm.reports.figures.evaluation import evaluation_figures, rank_figure, sigma_figure, skill_figure
from lvm.reports.figures.explain import lag_figure
from lvm.reports.figures.style import BASELINE, ENCODER, OTHER, PALETTE, colour, save
from lvm.reports.figures.text import decode_figure
from lvm.reports.figures.training import training_figure
from tests.support.pictures import assert_picture
from tests.support.trainings import events, trained

LENGTHS = ("1-16", "17-32")


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset) -> Checkpoint:
    """A trained model."""
    return load_checkpoint(trained(dataset), torch.device("cpu"))


@pytest.fixture(scope="module")
def found(dataset: Dataset, checkpoint: Checkpoint) -> dict[str, Evaluation]:
    """Evaluations under three names: enough documents for intervals."""
    one = evaluate_checkpoint(dataset, checkpoint, "val")
    return {"lstm": one, "mamba2": one, "transformer": one}


@pytest.fixture(autouse=True)
def nothing_left_open() -> None:
    """Figures that a test leaves open are its own."""
    plt.close("all")


def test_every_figure_of_an_evaluation_is_a_picture_of_sane_size(found: dict[str, Evaluation], tmp_path: Path) -> None:
    files = evaluation_figures(found, tmp_path / "figures")
    assert [file.name for file in files] == ["skill.png", "sigma.png", "ranks.png"]
    assert set((tmp_path / "figures").iterdir()) == set(files)
    for file in files:
        assert_picture(file)
    assert not plt.get_fignums(), "none is left in memory"


def test_training_curves_are_a_picture_of_sane_size(dataset: Dataset, tmp_path: Path) -> None:
    metrics = trained(dataset) / "training" / "metrics.jsonl"
    assert_picture(save(training_figure({"lstm": metrics, "gru": metrics}), tmp_path / "training.png"))


def test_skill_is_drawn_with_its_interval_at_the_height_of_its_name(found: dict[str, Evaluation]) -> None:
    figure = skill_figure(found)
    for axis, metric in zip(figure.axes, SKILLS, strict=True):
        labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        assert labels == list(found)
        drawn = [line for line in axis.lines if line.get_color() in PALETTE]
        for height, name in enumerate(found):
            skill = found[name].skill(metric)
            interval, point = (line for line in drawn if line.get_color() == colour(name))
            assert list(interval.get_xdata()) == pytest.approx([skill.low, skill.high])  # type: ignore[operator]
            assert list(point.get_xdata()) == pytest.approx([skill.value])
            assert list(interval.get_ydata()) == [height, height]
        assert axis.get_xlabel() == f"{metric} over {found['lstm'].best_baseline(metric)}"
    assert "val" in figure.get_suptitle()


def test_skill_without_an_interval_is_drawn_as_its_point(dataset: Dataset, checkpoint: Checkpoint) -> None:
    few = evaluate_checkpoint(dataset, checkpoint, "test")
    assert few.skill("cosine").low is None, "four test documents are too few"
    axis = skill_figure({"lstm": few}).axes[0]
    value = few.skill("cosine").value
    assert [list(line.get_xdata()) for line in axis.lines][:2] == [[value, value], [value]]


def test_ranks_are_drawn_as_recall_beside_the_best_baseline_and_chance(found: dict[str, Evaluation]) -> None:
    axis = rank_figure(found).axes[0]
    one = found["lstm"]
    best = one.best_baseline("recall_at_5")
    lines = {str(line.get_label()): line for line in axis.lines}
    assert set(lines) == {"lstm", "mamba2", "transformer", f"baseline {best}", "chance"}
    for line in lines.values():
        k, recall = (np.asarray(data) for data in line.get_data())
        assert k[0] == 1 and k[-1] == len(one.windows.pool)
        assert (np.diff(recall) >= 0).all() and recall[-1] == 1
        where = int(np.searchsorted(k, 5))
        assert k[where] == 5
        if line.get_label() != "chance":
            scores = one.model if line.get_label() in found else one.baselines[best]
            assert recall[where] == pytest.approx(float(scores.quantity("recall_at_5").mean()))
    assert lines["lstm"].get_ydata()[3] > 5 * lines["chance"].get_ydata()[3]  # type: ignore[index]
    assert lines["chance"].get_color() == ENCODER and lines[f"baseline {best}"].get_color() == BASELINE


def test_deviations_are_drawn_in_the_encoders_order_for_both_heads(found: dict[str, Evaluation]) -> None:
    axes = sigma_figure(found).axes
    spreads = found["lstm"].spreads
    for axis, head, quantity in zip(axes, ("y_dec", "y_cos", "y_dec", "y_cos"), ("raw_std", "std", "raw_mean", "mean"), strict=True):
        lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axis.lines}
        assert set(lines) == {"encoder", *found, *(["ridge"] if head == "y_dec" else [])}
        assert (np.diff(lines["encoder"]) <= 0).all()
        order = np.argsort(-getattr(spreads["target"], quantity))
        assert np.array_equal(lines["lstm"], getattr(spreads[head], quantity)[order])


def test_training_curves_show_every_logged_point(dataset: Dataset) -> None:
    file = trained(dataset) / "training" / "metrics.jsonl"
    figure: Figure = training_figure({"lstm": file})
    panels = {axis.get_title(): axis for axis in figure.axes}
    (loss,) = panels["1 − cosine(y_dec, target)"].lines
    expected = [
        (event["step"], event["metrics"]["train/loss_regression"]) for event in events(trained(dataset)) if "train/loss" in event["metrics"]
    ]
    assert list(zip(*loss.get_data(), strict=True)) == expected
    for metric in ("cosine", "R@1", "R@5", "MRR"):
        (skill,) = (line for line in panels[f"val skill, {metric}"].lines if line.get_label() == "lstm")
        assert len(skill.get_xdata()) == 3, "one point an epoch"  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_each_lag_is_worth_is_drawn_with_its_interval_beside_the_baseline(
    dataset: Dataset, checkpoint: Checkpoint, tmp_path: Path, split: str
) -> None:
    found = explain(dataset, checkpoint, split)
    figure = lag_figure(found)
    for axis, (metric, rival) in zip(figure.axes, found["rivals"].items(), strict=True):
        lines = {str(line.get_label()): line for line in axis.lines}
        for label, whose in (("lstm", "model"), (rival, "baseline")):
            drops = [found["ablations"][f"lag {lag}"][metric][whose] for lag in (1, 2, 3)]
            assert list(lines[label].get_xdata()) == [1, 2, 3]
            assert list(lines[label].get_ydata()) == [drop["value"] for drop in drops]
        ends = [segment[:, 1].tolist() for segment in axis.collections[0].get_segments()]  # type: ignore[attr-defined]
        own = [found["ablations"][f"lag {lag}"][metric]["model"] for lag in (1, 2, 3)]
        few = split == "test"
        assert ends == [[drop["value"]] * 2 if few else [drop["low"], drop["high"]] for drop in own]
        assert lines["lstm"].get_color() == colour("lstm") and lines[rival].get_color() == BASELINE
    assert_picture(save(figure, tmp_path / "lags.png"))


def test_each_architecture_has_a_colour_of_its_own_that_is_no_baselines() -> None:
    kept = {"lstm": "#1f77b4", "gru": "#2ca02c", "mamba2": "#d62728", "transformer": "#9467bd", "amn": "#ff7f0e"}
    assert {name: colour(name) for name in kept} == kept
    colours = [colour(name) for name in ARCHITECTURES]
    assert len({*colours, BASELINE, ENCODER, OTHER}) == len(colours) + 3
    assert colour("not an architecture") == OTHER


def test_figure_that_cannot_be_written_keeps_the_old_one(tmp_path: Path, found: dict[str, Evaluation]) -> None:
    file = tmp_path / "skill.png"
    file.write_bytes(b"old")
    figure = skill_figure(found)
    figure.savefig = lambda *_, **__: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        save(figure, file)
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_text_by_length_shows_ceiling_prediction_and_real_chunk() -> None:
    def arm(*values: float, decoded: bool = True) -> dict[str, object]:
        metrics = ["bleu", "token_f1", *(["roundtrip_cosine"] if decoded else [])]
        return {"by_length": {name: dict.fromkeys(metrics, value) for name, value in zip(LENGTHS, values, strict=True)}}

    summary = {"arms": {"A": arm(0.9, 0.8), "C": arm(0.3, 0.2), "nearest": arm(0.4, 0.5, decoded=False)}}
    figure = decode_figure(summary)
    assert [axis.get_title() for axis in figure.axes] == ["BLEU", "token F1", "round trip"]
    for axis in figure.axes:
        lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
        assert list(axis.lines[0].get_xdata()) == list(LENGTHS)
        assert lines["A: ceiling"] == [0.9, 0.8] and lines["C: prediction"] == [0.3, 0.2]
    assert np.isnan(lines["nearest real chunk"]).all(), "nothing was decoded there"
    assert list(figure.axes[0].lines[2].get_ydata()) == [0.4, 0.5]
