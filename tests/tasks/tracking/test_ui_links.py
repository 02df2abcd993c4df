"""Addresses of MLflow's UI; that it understands them is seen in a browser, in tests/flows/test_user_interfaces.py."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from tasks.tracking.ui_links import charts_address, table_address, ui_address


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ({}, "http://127.0.0.1:5000/"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///mlruns/mlflow.db"}, "http://127.0.0.1:5000/"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///mlruns/mlflow.db", "LVM_MLFLOW_UI": "http://127.0.0.1:5100"}, "http://127.0.0.1:5100/"),
        ({"MLFLOW_TRACKING_URI": "https://mlflow.example/", "LVM_MLFLOW_UI": "http://127.0.0.1:5100"}, "https://mlflow.example/"),
    ],
)
def test_ui_is_the_server_or_what_the_services_say_or_where_make_ui_puts_it(said, address, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "LVM_MLFLOW_UI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert ui_address() == address


def test_addresses_hold_nothing_that_breaks_a_link_in_markdown():
    for address in (table_address("1", ["a", "b"]), charts_address("1", "a")):
        assert not set(" \"'`()[]{}<>\\") & set(address)


def test_table_names_the_runs_and_their_experiment():
    query = parse_qs(urlsplit(table_address("7", ["a", "b", "c"])).fragment.partition("?")[2])
    assert (json.loads(query["runs"][0]), json.loads(query["experiments"][0])) == (["a", "b", "c"], ["7"])


def test_charts_show_the_runs_below_the_flow_s_the_best_first():
    query = parse_qs(urlsplit(charts_address("7", "flow")).fragment.partition("?")[2])
    assert query["searchFilter"] == ["tags.`mlflow.parentRunId` = 'flow'"]
    assert (query["orderByKey"], query["orderByAsc"]) == (["metrics.`val/skill_cosine`"], ["false"])
