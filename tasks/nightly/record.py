"""The record of all nights: one MLflow run for each date.

A run becomes the entry of its night by a tag, which is set after everything else is written. Only then is the entry
that it replaces deleted. So every night that was ever validated has an entry, whatever is killed and when.
"""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run

from lvm.reports.nightly import NightEntry
from tasks.tracking.runs import set_tags

NIGHT = "lvm.night"
"""Tag of a run that is an entry: the date."""

MOST = 50_000
"""Entries that MLflow returns at once: more than a century of nights."""


def all_nights(run_id: str) -> list[NightEntry]:
    """Every night in the experiment of this run, sorted by date. Of two entries for one date, the later one counts."""
    found = {run.data.tags[NIGHT]: night_of(run) for run in _entries(run_id)}
    return [found[date] for date in sorted(found)]


def night_of(run: Run) -> NightEntry:
    """The night that a run is the entry of."""
    tags = run.data.tags
    return NightEntry(tags[NIGHT], tags["lvm.gate"], tags["lvm.version"], run.data.metrics)


def enter_night(run_id: str, date: str, tags: Mapping[str, str]) -> None:
    """Make the run the only entry of its date."""
    older = [run.info.run_id for run in _entries(run_id) if run.data.tags[NIGHT] == date and run.info.run_id != run_id]
    set_tags(run_id, {**tags, NIGHT: date})
    for replaced in older:
        MlflowClient().delete_run(replaced)


def _entries(run_id: str) -> list[Run]:
    """The runs that are entries, oldest first."""
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    return list(client.search_runs([experiment], f"tags.`{NIGHT}` LIKE '%'", max_results=MOST, order_by=["attributes.start_time ASC"]))
