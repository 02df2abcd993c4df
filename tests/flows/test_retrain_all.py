"""The whole flow, really run: documents to a champion, once more without work, and not at all on spoilt documents."""

import contextlib
import io
import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

import lvm.decoding.evaluate
from flows.retrain_all import DEFAULT_ARCHITECTURES, retrain_all
from lvm.data.dataset import Dataset, open_dataset
from lvm.errors import InputError
from lvm.evaluation.evaluate import SKILLS
from lvm.evaluation.record import read_record
from lvm.gates.result import GateResult, verdict
from lvm.models.checkpoint import load_checkpoint
from tasks.gate_log import gate_tag
from tasks.promote import Promotion
from tests.support.commands import tree
from tests.support.corpora import count_hashes
from tests.support.flow_runs import children, files, flow_command, in_prefect, logged, parents, sentence, store

pytestmark = pytest.mark.slow

# Large and long enough for all three to beat the baselines on these few documents.
SETTINGS = ["model.width=128", "epochs=8"]
WINDOWS = 12


@dataclass(frozen=True)
class First:
    """What the first run of the flow left behind."""

    root: Path
    hashed: list[Path]
    promotion: Promotion
    terminal: str
    state: str
    artifacts: dict[str, str]

    @property
    def dataset(self) -> Dataset:
        """The one dataset that it made."""
        return only_dataset(self.root)

    @property
    def parent(self) -> Any:
        """The flow's own MLflow run."""
        return parents(self.root)[0]

    @property
    def models(self) -> dict[str, Any]:
        """The models' MLflow runs, by architecture."""
        return by_name(children(self.root, self.parent))


def only_dataset(root: Path) -> Dataset:
    (manifest,) = (root / "data").glob("*/manifest.json")
    return open_dataset(manifest.parent)


def by_name(runs: list[Any]) -> dict[str, Any]:
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


@pytest.fixture(scope="module")
def first(flow_environment: None, few_documents: Path, tmp_path_factory: pytest.TempPathFactory) -> First:
    """The flow in an empty folder; few windows are decoded, by the shipped decoder, which `auto` chooses."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as terminal:
        patch.setattr(lvm.decoding.evaluate, "WINDOWS", WINDOWS)
        hashed = count_hashes(patch)
        promotion = retrain_all(sources=[str(few_documents)], settings=SETTINGS, device="cpu", root=root)
    return First(root, hashed, promotion, terminal.getvalue(), *in_prefect(parents(root)[0]))


def command(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return flow_command("retrain_all", root, "--decoder", "none", *arguments, *(f"--set={setting}" for setting in SETTINGS))


# The first run


def test_every_file_of_the_dataset_is_hashed_once(first):
    shards = [file for file in first.hashed if file.suffix == ".parquet"]
    assert sorted(shards) == sorted(first.dataset.path / shard.file for shard in first.dataset.manifest.shards)


def test_flow_ends_with_a_champion_that_passed_every_gate(first):
    assert first.state == "Completed"
    assert (first.promotion.promoted, first.promotion.version) == (True, "1")
    assert first.promotion.challenger in DEFAULT_ARCHITECTURES
    gates = logged(first.root, first.models[first.promotion.challenger], "gates/model.json")["gates"]
    assert [g["name"] for g in gates if not g["passed"]] == []
    assert str(store(first.root).get_model_version_by_alias("lvm", "champion").version) == "1"


def test_exported_champion_loads_without_mlflow_or_prefect(first):
    checkpoint = load_checkpoint(first.root / "models" / "champion", torch.device("cpu"))
    record = read_record(first.root / "models" / "champion")
    assert record and all(gate["passed"] for gate in record["gates"]) and record["dataset_digest"] == checkpoint.config.dataset_digest
    assert {"value", "low", "high"} == record["test"]["metrics"]["skill_cosine"].keys()
    assert checkpoint.config.arch == first.promotion.challenger
    assert checkpoint.config.dataset_digest == first.dataset.manifest.digest


def test_three_runs_stand_under_one_parent_and_all_are_finished(first):
    parent, runs = first.parent, first.models
    assert set(runs) == set(DEFAULT_ARCHITECTURES)
    assert {parent.info.status, *(run.info.status for run in runs.values())} == {"FINISHED"}
    digest = first.dataset.manifest.digest[:12]
    for run in (parent, *runs.values()):
        assert {i.dataset.digest for i in run.inputs.dataset_inputs} == {digest}
        assert run.data.tags["lvm.dataset_digest"] == digest
        assert run.data.tags["lvm.prefect_flow_run_id"] == parent.data.tags["lvm.prefect_flow_run_id"]


@pytest.mark.parametrize("arch", DEFAULT_ARCHITECTURES)
def test_each_model_s_run_holds_configuration_curves_metrics_gates_and_figures(arch, first):
    run = first.models[arch]
    assert (run.data.params["model.arch"], run.data.params["model.width"], run.data.params["epochs"]) == (arch, "128", "8")
    assert run.data.tags["lvm.device"] == "cpu" and run.data.tags["lvm.gate"] in ("pass", "warn", "fail")
    wanted = {"train/loss_infonce", "train/loss_regression", "val/cosine", "val/recall_at_5", "val/skill_cosine", "val/sigma_ratio"}
    wanted |= {"val/effective_rank", "val/pairwise_cosine", "val/shuffle_drop", "best/cosine", "test/cosine", "test/skill_cosine"}
    wanted |= {"best/step", "best/epoch", "system/cpu_utilization_percentage", "system/chunks_per_second"}
    wanted |= {f"val/skill_{metric}{end}" for metric in SKILLS for end in ("", "_low", "_high")}
    wanted |= {f"test/skill_{metric}" for metric in SKILLS}  # too few test documents here for intervals
    wanted |= {"val/baseline_ridge_cosine", "gate/baselines", "gate/collapse"}
    assert wanted <= set(run.data.metrics)
    (output,) = run.outputs.model_outputs
    model = store(first.root).get_logged_model(output.model_id)
    assert (model.name, model.source_run_id, output.step) == (arch, run.info.run_id, run.data.metrics["best/step"])
    assert {f"{split}/skill_{metric}" for split in ("val", "test") for metric in SKILLS} <= {metric.key for metric in model.metrics}
    curve = store(first.root).get_metric_history(run.info.run_id, "val/cosine")
    assert len({point.step for point in curve}) >= 3
    figures = {"skill", "sigma", "ranks", "training", "shares"} | ({"text"} if arch == first.promotion.challenger else set())
    assert files(first.root, run, "figures") == {f"figures/{name}.png" for name in figures}
    assert files(first.root, run, "evaluation") == {"evaluation/val.json", "evaluation/test.json"}
    assert "card.md" in files(first.root, run)
    gates = logged(first.root, run, "gates/model.json")["gates"]
    assert {g["name"] for g in gates} >= {"reload_parity", "loss_balance", "baselines", "moment_matching", "collapse"}
    assert run.data.tags["lvm.gate"] == gate_tag([GateResult(**g) for g in gates])
    summary = logged(first.root, run, "evaluation/test.json")
    assert run.data.metrics["test/cosine"] == pytest.approx(summary["metrics"]["cosine"]["value"])


def test_parent_run_holds_what_was_asked_the_data_gates_the_figures_and_the_report(first, few_documents):
    parent = first.parent
    assert json.loads(parent.data.params["sources"]) == [str(few_documents)]
    assert json.loads(parent.data.params["architectures"]) == DEFAULT_ARCHITECTURES
    assert all(setting in parent.data.params["settings"] for setting in SETTINGS)
    assert all(g["passed"] for g in logged(first.root, parent, "gates/data.json")["gates"])
    figures = {"lags", "neighbours", "skill", "sigma", "ranks", "training"}
    assert files(first.root, parent, "figures") == {f"figures/{name}.png" for name in figures}
    assert "report.md" in files(first.root, parent)
    assert {f"{arch}/skill_{metric}" for arch in DEFAULT_ARCHITECTURES for metric in SKILLS} <= set(parent.data.metrics)
    note = parent.data.tags[MLFLOW_RUN_NOTE]
    assert f"Champion: {first.promotion.challenger} (version 1)" in note and "[their curves](#/experiments/" in note
    for run in first.models.values():
        assert run.info.run_id in note


def test_warnings_and_failures_of_gates_are_told_wherever_the_models_are_compared(first):
    told = first.terminal, first.artifacts["comparison"], first.parent.data.tags[MLFLOW_RUN_NOTE]
    for arch, run in first.models.items():
        gates = [GateResult(**gate) for gate in logged(first.root, run, "gates/model.json")["gates"]]
        for page in told:
            assert all(f"- {arch} has a warning of `{g.name}`: {g.sentence}" in page for g in gates if g.severity == "warn")
        for page in told[1:]:
            assert f"| {verdict(gates)} |" in page


def test_terminal_ends_with_the_comparison_the_champion_and_the_next_command(first):
    shown = " ".join(first.terminal.split())
    assert "Models on test documents" in shown
    for arch in DEFAULT_ARCHITECTURES:
        assert arch in shown
    assert f"Champion: {first.promotion.challenger} (version 1): there was no champion" in shown
    assert "Curves in MLflow (make ui): http://127.0.0.1:5000/#/experiments/" in shown
    assert f"looked at by {len(DEFAULT_ARCHITECTURES)} configurations." in shown
    assert "Next: lvm validate" in shown and shown.index("Next:") > shown.index("Champion:")


def test_challenger_s_predictions_are_decoded_and_shown_beside_the_real_chunks(first):
    assert [g["name"] for g in logged(first.root, first.parent, "gates/decoder.json")["gates"]] == ["encoder_contract"]
    runs = first.models
    run = runs.pop(first.promotion.challenger)
    assert {"decode/bleu", "decode/roundtrip_cosine", "decode/A_bleu", "decode/about_C_over_copy_last"} <= set(run.data.metrics)
    summary = logged(first.root, run, "decode/summary.json")
    assert (summary["windows"], summary["context_length"], summary["split"]) == (WINDOWS, 5, "test")
    train = {first.dataset.doc_ids[doc] for doc in first.dataset.docs("train")}
    assert {sample["nearest"]["doc_id"] for sample in summary["samples"]} <= train
    assert summary["available"] and run.data.tags["lvm.decoding"] == "available"
    assert run.data.tags["lvm.decoder"] == "minilm"
    for other in runs.values():
        assert not [name for name in other.data.metrics if name.startswith("decode/")]


def test_terminal_shows_the_real_chunk_before_the_words(first):
    shown = first.terminal
    assert shown.index("nearest real chunk") < shown.index("C: in words") < shown.index(f"Text of {first.promotion.challenger}: round trip")


def test_prefect_keeps_gates_models_and_comparison_as_artifacts(first):
    assert set(first.artifacts) == {"data-gates", "comparison", "decode", *(f"model-{arch}" for arch in DEFAULT_ARCHITECTURES)}
    assert "chunk_order" in first.artifacts["data-gates"]
    assert "| skill over the best baseline |" in first.artifacts["model-lstm"]
    assert f"{first.promotion.challenger} (champion)" in first.artifacts["comparison"]
    assert f"looked at by {len(DEFAULT_ARCHITECTURES)} configurations." in first.artifacts["comparison"]
    assert "[their numbers](http://127.0.0.1:5000/#/compare-runs?runs=" in first.artifacts["comparison"]


# The second run


@pytest.fixture(scope="module")
def second(first: First, few_documents: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, dict[str, int]]]:
    """The same again, as a real command; with the times of data and models before and after it."""

    def times() -> dict[str, int]:
        kept = [*(first.root / "data").rglob("*.parquet"), *(first.root / "runs").rglob("*.safetensors")]
        kept += [*(first.root / "runs").rglob("metrics.jsonl"), *(first.root / "runs").rglob("config.json")]
        return {str(file): file.stat().st_mtime_ns for file in kept}

    before = times()
    done = command(first.root, "--source", few_documents)
    return done, {"before": before, "after": times()}


def test_second_run_succeeds_with_the_report_on_standard_output_alone(second):
    done, _ = second
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("Models on test documents")
    assert done.stdout.splitlines()[-1].startswith("Next: lvm validate ")
    assert "Traceback" not in done.stderr


def test_second_run_reuses_dataset_and_finished_trainings(second):
    done, times = second
    assert len(times["before"]) > 3 * 4
    assert times["after"] == times["before"]
    assert ", reused" in done.stderr


def test_second_run_has_runs_of_its_own_with_the_whole_curves(first, second):
    old, new = parents(first.root)
    runs = {"old": by_name(children(first.root, old)), "new": by_name(children(first.root, new))}
    assert set(runs["new"]) == set(DEFAULT_ARCHITECTURES)
    assert {new.info.status, *(run.info.status for run in runs["new"].values())} == {"FINISHED"}
    for arch in DEFAULT_ARCHITECTURES:
        curves = [store(first.root).get_metric_history(runs[age][arch].info.run_id, "train/loss") for age in ("old", "new")]
        assert [(p.step, p.value) for p in curves[0]] == [(p.step, p.value) for p in curves[1]] != []


def test_second_run_leaves_the_champion_and_says_why(first, second):
    done, _ = second
    assert "The champion is unchanged" in done.stdout and "it is the current champion itself" in done.stdout
    client = store(first.root)
    assert [str(found.version) for found in client.search_model_versions("name = 'lvm'")] == ["1"]
    gates = logged(first.root, parents(first.root)[1], "gates/champion.json")["gates"]
    assert all(g["passed"] for g in gates)


# What is refused


@pytest.fixture(scope="module")
def spoilt(first: First, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The flow, as a real command, on every other document of the first run, its sentences shuffled."""
    folder = tmp_path_factory.mktemp("spoilt")
    dataset = first.dataset
    shuffler = random.Random(0)
    lines = []
    for doc in range(0, len(dataset.doc_ids), 2):
        sentences = dataset.texts(np.arange(dataset.starts[doc], dataset.starts[doc + 1]))
        shuffler.shuffle(sentences)
        lines.append(json.dumps({"doc_id": dataset.doc_ids[doc], "text": "\n".join(sentences)}))
    (folder / "shuffled.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return command(folder / "root", "--source", folder / "shuffled.jsonl"), folder / "root"


def test_spoilt_documents_end_the_command_with_3_and_the_reason(spoilt):
    done, _ = spoilt
    assert done.returncode == 3, done.stderr[-3000:]
    said = sentence("retrain-all", done)
    assert said.startswith("retrain-all: chunk_order: ") and "was lost" in said


def test_nothing_is_trained_on_spoilt_documents(spoilt):
    done, root = spoilt
    assert done.stdout == ""
    assert not (root / "models").exists()
    left = {Path(file).name for file in tree(root) if file.startswith("runs/")}
    assert left == {"lags.png", "neighbours.png"}, "what the gates saw, and no more"


def test_refused_flow_s_run_is_failed_with_the_reason_and_the_gates(spoilt):
    _, root = spoilt
    (parent,) = parents(root)
    assert parent.info.status == "FAILED"
    assert parent.data.tags["lvm.gate"] == "fail"
    assert parent.data.tags[MLFLOW_RUN_NOTE].startswith("GateRefused: chunk_order: ")
    assert children(root, parent) == []
    passed = {g["name"]: g["passed"] for g in logged(root, parent, "gates/data.json")["gates"]}
    assert passed["chunk_order"] is False and passed["duplicates"] is True


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"architectures": ["lstm", "rnn"]}, "architecture 'rnn' is not known: there are "),
        ({"settings": ["model.widht=64"]}, "unknown field 'model.widht'"),
        ({"settings": ["serving.burst=1"]}, "has no effect here: this command reads the settings of "),
        ({"preset": "fastest"}, "preset 'fastest' is not known: there are "),
        ({"config": Path("nowhere.yaml")}, "config file nowhere.yaml cannot be read"),
        ({"device": "cuda:99"}, "is not on this machine"),
        ({"dataset": Path("nowhere"), "sources": ["builtin:sotu"]}, "dataset nowhere is not a folder"),
        ({"dataset": Path("nowhere")}, "is there already, so sources, encoder and max_docs have no effect; leave them out"),
        ({"dataset": Path("data"), "sources": ["builtin:sotu"], "max_docs": 9}, "sources, encoder and max_docs have no effect"),
        ({"devices_per_model": 0}, "field 'devices_per_model' is 0: give 1 or more"),
        ({"max_docs": -3}, "field 'max_docs' is -3: give 2 or more, or leave it out"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(asked, says, flow_environment, few_documents, tmp_path):
    with pytest.raises(InputError, match=says):
        retrain_all(**{"sources": [str(few_documents)], "device": "cpu", "root": tmp_path, **asked})
    assert list(tmp_path.iterdir()) == []
