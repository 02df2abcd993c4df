"""One date has one entry, whatever is validated twice and whatever is killed on the way."""

import pytest
from mlflow import MlflowClient

from tasks.nightly import record as night_record
from tasks.nightly.record import all_nights, enter_night
from tasks.tracking.runs import log_metrics, parent_run
from tasks.workspace import Workspace


def night(workspace: Workspace, date: str, skill: float, gate: str = "pass") -> str:
    with parent_run(workspace, f"nightly-{date}", {}, {}) as run:
        log_metrics(run, {"night/skill_cosine": skill})
        enter_night(run, date, {"lvm.gate": gate, "lvm.version": "1"})
    return run


def shown(run: str) -> list[tuple[str, str, float]]:
    return [(n.date, n.gate, n.metrics["night/skill_cosine"]) for n in all_nights(run)]


@pytest.fixture()
def fresh_workspace(make_workspace, tmp_path, monkeypatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return make_workspace(tmp_path)


def test_nights_are_kept_by_date_and_a_repeated_one_replaces_its_entry(fresh_workspace):
    first = night(fresh_workspace, "2026-01-02", 0.01)
    night(fresh_workspace, "2026-01-01", 0.02)
    again = night(fresh_workspace, "2026-01-02", 0.03, "fail")
    assert shown(again) == [("2026-01-01", "pass", 0.02), ("2026-01-02", "fail", 0.03)]
    assert MlflowClient().get_run(first).info.lifecycle_stage == "deleted"
    assert MlflowClient().get_run(again).info.lifecycle_stage == "active"


def test_run_that_died_before_its_end_is_no_entry_and_leaves_the_one_before(fresh_workspace):
    first = night(fresh_workspace, "2026-01-01", 0.01)
    with pytest.raises(RuntimeError), parent_run(fresh_workspace, "nightly-2026-01-01", {}, {}) as run:
        log_metrics(run, {"night/skill_cosine": 0.5})
        raise RuntimeError("killed")
    assert shown(first) == [("2026-01-01", "pass", 0.01)]


def test_kill_between_entering_and_deleting_shows_the_later_and_the_next_time_cleans_up(fresh_workspace, monkeypatch):
    night(fresh_workspace, "2026-01-01", 0.01)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(night_record.MlflowClient, "delete_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        night(fresh_workspace, "2026-01-01", 0.02)
    third = night(fresh_workspace, "2026-01-02", 0.0)
    assert shown(third) == [("2026-01-01", "pass", 0.02), ("2026-01-02", "pass", 0.0)]
    last = night(fresh_workspace, "2026-01-01", 0.03)
    assert shown(last) == [("2026-01-01", "pass", 0.03), ("2026-01-02", "pass", 0.0)]
    experiment = MlflowClient().get_run(last).info.experiment_id
    assert len(MlflowClient().search_runs([experiment], "tags.`lvm.night` = '2026-01-01'")) == 1
