"""The figures of the gates are pictures, show the gates' own numbers, and say so where there is nothing to show."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lvm.config import LOSS_TERMS, GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.windows import LEAKED_COSINE
from lvm.evaluation.intervals import Interval
from lvm.gates.data.order import Order, order_of
from lvm.models.checkpoint import read_config
from lvm.reports.figures.data import BINS, data_figures, neighbour_cosines, neighbour_figure, order_figure
from lvm.reports.figures.style import save
from lvm.reports.figures.training import share_figure
from tests.support.pictures import assert_picture
from tests.support.poisoned_data import changed, copied
from tests.support.trainings import trained


@pytest.fixture(autouse=True)
def nothing_left_open() -> None:
    """Figures that a test leaves open are its own."""
    plt.close("all")


def test_both_figures_of_the_data_are_pictures_of_sane_size(dataset: Dataset, tmp_path: Path) -> None:
    files = data_figures(dataset, tmp_path / "figures")
    assert [file.name for file in files] == ["lags.png", "neighbours.png"]
    for file in files:
        assert_picture(file)
    assert not plt.get_fignums(), "none is left in memory"


def test_lag_profile_is_drawn_above_the_shuffle_that_it_leads(dataset: Dataset) -> None:
    found = order_of(dataset)
    order, shuffle = order_figure(found).axes[0].lines
    assert list(order.get_xdata()) == [1, 2, 3, 4, 5] and list(order.get_ydata()) == found.profile
    assert list(shuffle.get_ydata()) == [found.profile[0] - found.lead.value] * 2
    assert max(shuffle.get_ydata()) < min(found.profile)


def test_lag_profile_that_there_is_not_is_said_and_not_drawn() -> None:
    axis = order_figure(Order([], Interval(0.0, None, None), 0.0, np.zeros((0, 3)), 0, 0)).axes[0]
    assert "No document is long enough" in axis.get_title() and len(axis.lines) == 1


def test_neighbours_are_the_nearest_training_rows(dataset: Dataset) -> None:
    found = neighbour_cosines(dataset, "val")
    x = dataset.vectors / np.linalg.norm(dataset.vectors, axis=1, keepdims=True)
    expected = (x[dataset.rows("val")] @ x[dataset.rows("train")].T).max(1)
    assert found == pytest.approx(expected, abs=1e-5)


def test_copies_of_training_rows_stand_in_the_last_bar(dataset: Dataset, tmp_path: Path) -> None:
    vectors, _, rows = copied(dataset, "test", 0.3, "vectors")
    found = {split: neighbour_cosines(changed(dataset, tmp_path, vectors), split) for split in ("val", "test")}
    axis = neighbour_figure(found).axes[0]
    (val, test) = (patch.get_data().values for patch in axis.patches)  # type: ignore[attr-defined]
    assert val.sum() == pytest.approx(1) and test.sum() == pytest.approx(1) and len(val) == len(BINS) - 1
    assert test[-1] >= 0.29 > 0.05 > val[-1]
    assert f"{(found['test'] >= LEAKED_COSINE).mean():.2%} copies" in axis.get_legend().get_texts()[1].get_text()
    assert len(rows) <= (found["test"] >= LEAKED_COSINE).sum()


def test_split_without_rows_and_vectors_that_are_no_numbers_are_no_neighbours(dataset: Dataset, tmp_path: Path) -> None:
    vectors = np.array(dataset.vectors)
    bad = np.append(dataset.rows("val")[:3], dataset.rows("train")[:3])
    vectors[bad] = np.nan
    found = neighbour_cosines(changed(dataset, tmp_path, vectors), "val")
    assert len(found) == len(dataset.rows("val")) - 3 and np.isfinite(found).all()
    labels = [text.get_text() for text in neighbour_figure({"val": found, "test": found[:0]}).axes[0].get_legend().get_texts()]
    assert labels[1] == "test, no row"


def test_shares_are_drawn_term_by_term_and_zero_is_seen(dataset: Dataset, tmp_path: Path) -> None:
    measured = read_config(trained(dataset)).gradient_shares
    measured[1]["train/gradient_share_infonce"] = 0.0
    figure = share_figure(measured, "lstm", GateThresholds())
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert "mse" not in lines, "it has no weight, and was not measured"
    for term in LOSS_TERMS.names()[:-1]:
        assert list(lines[term].get_xdata()) == [0, 50]
        assert list(lines[term].get_ydata()) == [line[f"train/gradient_share_{term}"] for line in measured]
    assert figure.axes[0].get_ylim()[0] == 0 and "loss_balance warns below 0.01" in lines
    assert_picture(save(figure, tmp_path / "shares.png"))


def test_model_that_recorded_no_shares_says_so() -> None:
    assert "no gradient shares were recorded" in share_figure([], "lstm", GateThresholds()).axes[0].get_title()
