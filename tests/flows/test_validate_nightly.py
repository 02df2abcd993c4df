"""Nights, really run: a healthy one, the same date again on poisoned documents, one without documents; and what is refused."""

import contextlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from prefect.settings import get_current_settings

import lvm.decoding.load
from flows.validate_nightly import night_date, validate_nightly
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.errors import GateRefused, InputError
from tasks.workspace import Workspace
from tests.support.flow_runs import files, flow_command, in_prefect, logged, sentence, store
from tests.support.lookup_decoder import LookupDecoder, loader
from tests.support.nights import addresses, champion, rot13, write_documents
from tests.support.processes import until
from tests.support.registered_champion import make_champion

pytestmark = pytest.mark.slow

DOCUMENTS, OLD = 12, 3
NIGHT = "2026-01-01"


@dataclass(frozen=True)
class Ran:
    """What a run of the flow left behind."""

    terminal: str
    report: str
    state: str
    run: Any
    error: str


@pytest.fixture(scope="module")
def root(flow_environment: None, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a champion."""
    root = tmp_path_factory.mktemp("root")
    make_champion(Workspace(root=root), dataset, champion(dataset).path)
    return root


def entries(root: Path) -> list[Any]:
    """The runs that are entries of the record of nights."""
    client = store(root)
    return list(client.search_runs([client.get_experiment_by_name("lvm").experiment_id], "tags.`lvm.night` LIKE '%'"))


def ran(root: Path, **asked: Any) -> Ran:
    """Run the flow in this process; a refusal is an outcome."""
    error = ""
    with contextlib.redirect_stdout(io.StringIO()) as terminal:
        try:
            validate_nightly(device="cpu", root=root, **asked)
        except GateRefused as refused:
            error = str(refused)
    (run,) = (entry for entry in entries(root) if entry.data.tags["lvm.night"] == asked["date"])
    state, artifacts = in_prefect(run)
    return Ran(terminal.getvalue(), artifacts["nightly-report"], state, run, error)


@pytest.fixture(scope="module")
def healthy(root: Path, dataset: Dataset, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A night of new addresses, three training documents among them, with a decoder that looks vectors up."""
    documents = addresses(DOCUMENTS)
    for doc in dataset.docs("train")[:OLD]:
        documents[f"again-{doc}"] = "\n".join(dataset.texts(np.arange(dataset.starts[doc], dataset.starts[doc + 1])))
    source = write_documents(documents, tmp_path_factory.mktemp("healthy") / "arrived.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lvm.decoding.load, "load_decoder", loader(LookupDecoder(dataset, encoder)))
        return ran(root, source=[str(source)], date=NIGHT, decoder="lookup")


@pytest.fixture(scope="module")
def poisoned(healthy: Ran, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The same date again, on documents of another language."""
    source = write_documents(addresses(DOCUMENTS, rot13), tmp_path_factory.mktemp("poisoned") / "arrived.jsonl")
    return ran(root, source=[str(source)], date=NIGHT, decoder="none")


def test_healthy_night_passes_and_is_entered_with_gates_metrics_figures_and_report(healthy, root):
    assert (healthy.error, healthy.state) == ("", "Completed")
    run = store(root).get_run(healthy.run.info.run_id)
    assert healthy.run.info.status == "FINISHED" and healthy.run.data.tags["lvm.gate"] in ("pass", "warn")
    wanted = {"night/skill_cosine", "night/skill_cosine_low", "own/skill_cosine", "night/recall_at_5", "night/baseline_ridge_cosine"}
    wanted |= {"drift/skill_cosine", "drift/skill_recall_at_5_p", "drift/embedding", "drift/embedding_low", "gate/embedding_drift"}
    assert wanted | {"decode/bleu"} <= set(healthy.run.data.metrics)
    assert run.inputs.dataset_inputs[0].tags[0].value == "validation"


def test_training_documents_among_the_new_ones_are_left_out_and_counted(healthy):
    """One more than were slipped in: Roosevelt's address of 1945 exists in two versions, and the champion's dataset holds the other."""
    assert f"{DOCUMENTS - 1} of {DOCUMENTS - 1} new documents of " in healthy.report
    left_out = f"{OLD + 1} that the champion's dataset holds were left out"
    assert left_out in healthy.report and left_out in healthy.terminal


def test_report_sets_the_night_beside_the_champion_s_own_numbers_and_all_nights_and_words(healthy):
    for part in (
        f"{NIGHT}: gates pass",
        "**Gates, 2026-01-01**",
        "| skill_cosine |",
        "| ridge |",
        "The last 1 of 1 nights",
        "C: the prediction",
    ):
        assert part in healthy.report
    assert "| encoder_contract | pass |" in healthy.report and "| encoder_unchanged | pass |" in healthy.report


def test_poisoned_night_is_red_everywhere_and_names_what_changed(poisoned, root):
    assert poisoned.state == "Failed" and poisoned.run.info.status == "FAILED"
    assert "embedding_drift: " in poisoned.error and "night_skill: " in poisoned.error
    assert poisoned.run.data.tags["lvm.gate"] == "fail" and "embedding_drift" in poisoned.run.data.tags[MLFLOW_RUN_NOTE]
    assert "2026-01-01: BREACH of embedding_drift" in poisoned.report and "BREACH" in poisoned.terminal
    gates = {gate["name"]: gate["passed"] for gate in logged(root, poisoned.run, "gates/night.json")["gates"]}
    assert gates["own_numbers"] and not gates["embedding_drift"]
    figures = {f"figures/{name}.png" for name in ("skill", "sigma", "ranks", "documents", "trend")}
    assert files(root, poisoned.run, "figures") == figures, "a breach is reported as wholly as a night that passes"


def test_same_date_again_is_one_entry_the_later(healthy, poisoned, root):
    assert [entry.info.run_id for entry in entries(root)] == [poisoned.run.info.run_id] != [healthy.run.info.run_id]
    assert "The last 1 of 1 nights" in poisoned.report


def test_breach_emits_the_event_that_the_automation_waits_for(poisoned):
    found = until(breaches, 60)
    assert [event["payload"]["date"] for event in found] == [NIGHT]
    assert found[0]["resource"]["prefect.resource.id"] == "lvm.champion" and found[0]["payload"]["reason"] == poisoned.error


def breaches() -> list[dict[str, Any]]:
    asked = {"filter": {"event": {"name": ["lvm.nightly.breach"]}, "occurred": {"since": "2020-01-01T00:00:00Z"}}}
    return httpx.post(f"{get_current_settings().api.url}/events/filter", json=asked).json()["events"]


# What is refused


def test_night_of_nothing_but_training_documents_is_refused_and_leaves_the_record(poisoned, root, dataset, tmp_path):
    doc = int(dataset.docs("train")[0])
    text = "\n".join(dataset.texts(np.arange(dataset.starts[doc], dataset.starts[doc + 1])))
    source = write_documents({"again": text}, tmp_path / "old.jsonl")
    with pytest.raises(InputError, match=r"field 'source': all 1 documents of .* are in the champion's dataset, so none is new"):
        validate_nightly(source=[str(source)], date=NIGHT, device="cpu", root=root)
    assert [entry.info.run_id for entry in entries(root)] == [poisoned.run.info.run_id]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "there is no champion at "),
        ({"date": "1.2.2026"}, "field 'date' is '1.2.2026': give a date as YYYY-MM-DD"),
        ({"date": "2026-02-30"}, "field 'date' is '2026-02-30'"),
        ({"date": "20260201"}, "field 'date' is '20260201'"),
        ({"max_docs": 0}, "field 'max_docs' is 0"),
        ({"device": "cuda:99"}, "is not on this machine"),
    ],
)
def test_what_cannot_be_validated_is_refused_before_any_work(asked, says, flow_environment, tmp_path):
    with pytest.raises(InputError, match=says):
        validate_nightly(**{"device": "cpu", "root": tmp_path, **asked})
    assert list(tmp_path.iterdir()) == []


def test_night_is_today_in_utc_unless_said():
    assert night_date(None) in {datetime.now(UTC).date().isoformat(), night_date(None)}
    assert night_date("2026-01-31") == "2026-01-31"


# As a command


def test_command_without_documents_takes_a_slice_of_the_built_in_corpus_and_says_so(poisoned, root):
    done = flow_command("validate_nightly", root, "--date", "2026-01-02", "--max-docs", "6", "--decoder", "none")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "6 of " in done.stdout and "new documents of the built-in corpus of addresses, since no source was given" in done.stdout
    assert done.stdout.splitlines()[-1] == "Next: make ui"
    assert [entry.data.tags["lvm.night"] for entry in sorted(entries(root), key=lambda e: e.info.start_time)] == [NIGHT, "2026-01-02"]


def test_command_ends_with_2_where_there_is_no_champion(tmp_path):
    done = flow_command("validate_nightly", tmp_path / "empty")
    assert done.returncode == 2
    assert sentence("validate-nightly", done).startswith("validate-nightly: there is no champion at ")
