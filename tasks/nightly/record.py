"""The record of all nights: one MLflow run a date, and what else is shown is drawn from them.

A run becomes a night's entry by one tag, set when everything else of it is written; only then is the entry
that it replaces deleted. So whatever is killed, and whenever, every night that was once validated has an entry.
"""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run

from lvm.reports.nightly import NightEntry
from tasks.tracking.runs import set_tags

NIGHT = "lvm.night"
"""Tag: the date of a run that is an entry."""


MOST = 50_000
"""Entries that MLflow gives at once: more than a century of nights."""


def all_nights(run_id: str) -> list[NightEntry]:
    """Every night in the experiment of this run, by date; of two entries of one date the later."""
    found = {run.data.tags[NIGHT]: night_of(run) for run in _entries(run_id)}
    return [found[date] for date in sorted(found)]


def night_of(run: Run) -> NightEntry:
    """The entry that a run is."""
    tags = run.data.tags
    return NightEntry(tags[NIGHT], tags["lvm.gate"] == "pass", tags["lvm.version"], run.data.metrics)


def enter_night(run_id: str, date: str, tags: Mapping[str, str]) -> None:
    """Make the run the one entry of its date."""
    older = [run.info.run_id for run in _entries(run_id) if run.data.tags[NIGHT] == date and run.info.run_id != run_id]
    set_tags(run_id, {**tags, NIGHT: date})
    for replaced in older:
        MlflowClient().delete_run(replaced)


def _entries(run_id: str) -> list[Run]:
    """The runs that are entries, the oldest first."""
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    return list(client.search_runs([experiment], f"tags.`{NIGHT}` LIKE '%'", max_results=MOST, order_by=["attributes.start_time ASC"]))
