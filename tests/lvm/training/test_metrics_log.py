"""The record of a training loses nothing to a resume, and holds nothing twice."""

from pathlib import Path

import pytest

from lvm.errors import InputError
from lvm.training.metrics_log import Event, append_event, event_order, keep_events


def event(step: int, **metrics: float) -> Event:
    return {"step": step, "total_steps": 8, "epoch": 0, "metrics": metrics, "timing": {"time": float(step)}}


PREDICTOR = [event(0, **{"train/loss": 1.0}), event(4, **{"val/cosine": 0.4, "best/cosine": 0.4}), event(4, **{"train/loss": 0.5})]
DECODER = [event(0, **{"train/loss_first": 1.0}), event(4, **{"val/bleu_0_corrections": 0.4}), event(4, **{"train/loss_correction": 0.5})]


@pytest.mark.parametrize("lines", [PREDICTOR, DECODER])
def test_what_was_measured_after_a_step_comes_before_the_step_of_that_number(lines: list[Event]) -> None:
    order = [event_order(line) for line in lines]
    assert order == sorted(set(order)), "each has a place of its own"


@pytest.mark.parametrize("lines", [PREDICTOR, DECODER])
def test_resume_keeps_what_was_measured_before_the_state_and_drops_the_step_that_is_done_again(lines: list[Event], tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for line in lines:
        append_event(file, line)
    kept = file.read_text().splitlines(keepends=True)[:2]
    keep_events(file, 4)
    assert file.read_text() == "".join(kept)
    keep_events(file, 3)
    assert file.read_text() == kept[0]


def test_line_that_a_kill_cut_short_is_dropped_with_all_after_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append_event(file, event(0, loss=1.0))
    whole = file.read_text()
    file.write_text(whole + whole[:20])
    keep_events(file, 4)
    assert file.read_text() == whole


def test_a_missing_record_and_a_value_that_is_no_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give --fresh"):
        keep_events(tmp_path / "none.jsonl", 4)
    with pytest.raises(ValueError, match="JSON compliant"):
        append_event(tmp_path / "metrics.jsonl", event(0, loss=float("nan")))
