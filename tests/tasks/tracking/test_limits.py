"""MLflow takes what it is told of any corpus: long values and long lists are cut and counted, and the manifest keeps them whole."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from lvm.data.encoders import Encoder
from lvm.data.extract import extract
from lvm.data.manifest import Manifest, read_manifest
from tasks.tracking.limits import PARAM, flatten, shortened
from tasks.tracking.logged_model import log_model_metrics
from tasks.tracking.runs import child_run, connect, log_dataset, parent_run, set_tags
from tests.support.corpora import QuickEncoder, write_lines

PAGES = 900
URL = "https://example.org/archive/of/reports/on/harbours/and/roads/of/the/north/report-{:05d}.html"


@pytest.fixture(scope="module")
def pages(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 900 documents, each from a URL of 85 characters or more."""
    folder = tmp_path_factory.mktemp("pages")
    rows = [{"doc_id": str(i), "source": URL.format(i), "text": f"Report {i} is short.\n\nIt ends in line {i}."} for i in range(PAGES)]
    extract([write_lines(folder / "pages.jsonl", rows)], folder / "out", QuickEncoder(encoder))
    return folder / "out"


def told(run_id: str) -> Run:
    return MlflowClient().get_run(run_id)


def test_a_source_a_document_stops_no_run_and_is_counted_while_the_manifest_names_all(workspace, pages):
    manifest = read_manifest(pages)
    assert len(manifest.sources) == PAGES and len(json.dumps(manifest.sources)) > 65_535
    connect(workspace)
    files = [f"{page}.jsonl" for page in manifest.sources]
    with parent_run(workspace, "x" * 5_000, {"sources": files}, {"lvm.long": "x" * 9_000}) as parent:
        log_dataset(parent, manifest)
        child = child_run(parent, "lstm", {"decoder": {"favour": dict.fromkeys(manifest.sources, 2.0)}}, {}, manifest)
        log_metric_of_a_model(child, manifest)
        set_tags(child, {MLFLOW_RUN_NOTE: "x" * 70_000})
    (data,) = [found.dataset for found in told(parent).inputs.dataset_inputs]
    shown = json.loads(data.source)["sources"]
    assert shown[:-1] == manifest.sources[: len(shown) - 1] and shown[-1] == f"and {PAGES - len(shown) + 1} more"
    assert data.name == f"{manifest.sources[0]}-and 899 more" and data.digest == manifest.digest[:12]
    parameter = json.loads(told(parent).data.params["sources"])
    assert parameter[0] == files[0] and parameter[-1] == f"and {PAGES - len(parameter) + 1} more"
    assert [i.dataset.digest for i in told(child).inputs.dataset_inputs] == [data.digest]
    assert told(child).data.params["decoder.favour"].endswith(" more characters")
    assert told(child).data.tags[MLFLOW_RUN_NOTE].endswith("… and 65,040 more characters")
    assert told(parent).data.tags["lvm.long"].endswith("… and 4,040 more characters")
    assert told(parent).info.run_name == "x" * 210 + "… and 4,790 more characters"


def log_metric_of_a_model(run_id: str, manifest: Manifest) -> None:
    """A metric that is linked to the dataset by its name."""
    model = MlflowClient().create_logged_model(told(run_id).info.experiment_id, name="lstm", source_run_id=run_id)
    log_model_metrics(run_id, model.model_id, {"val/cosine": 0.5}, 1, manifest)
    assert MlflowClient().get_logged_model(model.model_id).metrics[0].dataset_digest == manifest.digest[:12]


@pytest.mark.parametrize(
    "sources", [["\N{MUSICAL SYMBOL G CLEF}" * 70_000], ["s"] * 70_000, ["\0\n" * 300] * 900], ids=["one long", "many short", "control"]
)
def test_names_of_any_kind_are_taken(workspace, pages, sources):
    connect(workspace)
    manifest = read_manifest(pages).model_copy(update={"sources": sources, "key": sources[0]})
    with parent_run(workspace, "odd names", {"sources": sources}, {}) as run:
        log_dataset(run, manifest)
    assert [i.dataset.digest for i in told(run).inputs.dataset_inputs] == [manifest.digest[:12]]


def test_more_settings_than_mlflow_takes_at_once_all_arrive(workspace):
    connect(workspace)
    with parent_run(workspace, "settings", {f"setting_{i}": i for i in range(250)}, {}) as run:
        pass
    assert len(told(run).data.params) == 250


@given(st.text(max_size=300), st.integers(60, 200))
def test_what_is_cut_ends_in_how_much_was_and_is_never_too_long(text, most):
    short = shortened(text, most)
    assert len(short) <= most
    kept, cut, words = short.rpartition("… and ")
    if len(text) <= most:
        assert short == text
    else:
        assert cut and text.startswith(kept) and int(words.split()[0].replace(",", "")) == len(text) - len(kept)


def test_flatten_names_nested_settings_by_their_path():
    nested = {"model": {"arch": "lstm", "deep": {"er": 1}}, "epochs": 2, "sources": ["a", "b"], "place": (Path("x"),), "none": None}
    assert flatten(nested) == {
        "model.arch": "lstm",
        "model.deep.er": 1,
        "epochs": 2,
        "sources": '["a", "b"]',
        "place": '["x"]',
        "none": None,
    }


def test_flatten_keeps_a_mapping_by_names_that_are_no_settings_in_one_value():
    assert flatten({"favour": {"https://a.org": 2.0}, "other": {"sotu": 3.0}, "none": {}}) == {
        "favour": '{"https://a.org": 2.0}',
        "other.sotu": 3.0,
    }


def test_long_list_is_cut_where_an_entry_ends():
    (value,) = flatten({"sources": [f"folder/{i}.txt" for i in range(5_000)]}).values()
    entries = json.loads(value)
    assert len(value) <= PARAM and entries[-1] == f"and {5_000 - len(entries) + 1:,} more"
