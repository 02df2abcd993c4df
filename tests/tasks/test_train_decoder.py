"""The decoder's stages: where it is trained, what is refused before, and how it is evaluated on texts that it has not seen."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from prefect.logging import disable_run_logger

import tasks.evaluate_decoder
import tasks.train_decoder
from lvm.config import GateThresholds, read_settings
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding import evaluate as ceiling
from lvm.decoding.protocol import Decoder
from lvm.errors import GateRefused, InputError
from tasks.evaluate_decoder import EvaluatedDecoder, ceiling_metrics, evaluate_decoder
from tasks.tracking.runs import child_run, parent_run
from tasks.train_decoder import TrainedDecoder, fit_decoder
from tasks.workspace import Workspace
from tests.support.commands import copy_of, with_recipe, with_vectors
from tests.support.lookup_decoder import ConstantDecoder, LookupDecoder, loader

TEXTS = 20


@pytest.fixture(scope="module")
def parent(workspace: Workspace) -> str:
    """A flow's run."""
    with parent_run(workspace, "parent", {}, {}) as run:
        return run


def children(parent: str) -> dict[str, Any]:
    """The MLflow runs below `parent`, by id."""
    client = MlflowClient()
    found = client.search_runs([client.get_run(parent).info.experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'")
    return {run.info.run_id: run for run in found}


# The training


@pytest.fixture()
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been started, in place of a process that trains for a minute."""
    calls: list[dict[str, Any]] = []
    names = ("out", "run_id", "command", "settings", "threads", "fresh")
    monkeypatch.setattr(tasks.train_decoder, "train_into", lambda *values: calls.append(dict(zip(names, values, strict=True))))
    return calls


def fit(workspace: Workspace, dataset: Path, parent: str, hold_out: list[Path] = [], settings: list[str] = []) -> TrainedDecoder:  # noqa: B006
    with disable_run_logger():
        given = read_settings(assignments=[f"decoder.{setting}" for setting in settings])
        return fit_decoder.fn(workspace, dataset, hold_out, given, "cpu", parent)


def test_the_folder_is_named_by_encoder_and_by_everything_that_the_decoder_depends_on(
    workspace: Workspace, dataset: Dataset, parent: str, started: list[dict[str, Any]], tmp_path: Path
) -> None:
    other = with_vectors(dataset, tmp_path / "other", lambda vectors: vectors[:, ::-1])
    first = fit(workspace, dataset.path, parent, [], ["rounds=2"])
    assert first.path.parent == workspace.root / "decoders" and first.path.name.startswith("minilm-")
    assert len({call["run_id"] for call in started}) == 1 and started[0]["out"] == first.path
    again = fit(workspace, copy_of(dataset, tmp_path / "copy"), parent, [], ["rounds=2"])
    assert again.path == first.path and again.run_id != first.run_id, "the data counts, not its folder"
    for changed in (
        fit(workspace, dataset.path, parent, [], ["rounds=3"]),
        fit(workspace, dataset.path, parent, [other], ["rounds=2"]),
        fit(workspace, other, parent, [], ["rounds=2"]),
    ):
        assert changed.path != first.path
    orders = [fit(workspace, dataset.path, parent, held) for held in ([dataset.path, other], [other, dataset.path])]
    assert orders[0].path != orders[1].path, "the decoder is evaluated on the first one"


def test_the_trainer_is_told_data_device_settings_and_what_to_hold_out(
    workspace: Workspace, dataset: Dataset, parent: str, started: list[dict[str, Any]], tmp_path: Path
) -> None:
    other = copy_of(dataset, tmp_path / "other")
    found = fit(workspace, dataset.path, parent, [other], ["rounds=2", "model.width=64"])
    (call,) = started
    assert call["command"] == ["train-decoder", dataset.path, "--device", "cpu", f"--hold-out={other}"]
    assert yaml.safe_load(call["settings"]) == {"decoder": {"rounds": 2, "model": {"width": 64}}} and not call["fresh"]
    run = children(parent)[found.run_id]
    assert (run.data.params["rounds"], run.data.params["model.width"]) == ("2", "64")
    digest = dataset.manifest.digest[:12]
    told = {name: run.data.tags[f"lvm.{name}"] for name in ("encoder", "dataset_digest", "device", "held_out")}
    assert told == {"encoder": "minilm", "dataset_digest": digest, "device": "cpu", "held_out": f"{digest}, {digest}"}


def test_what_cannot_be_trained_is_refused_before_a_run_or_a_process(
    workspace: Workspace, dataset: Dataset, started: list[dict[str, Any]], tmp_path: Path
) -> None:
    with parent_run(workspace, "refused", {}, {}) as parent:
        with pytest.raises(InputError, match="none is not a folder"):
            fit(workspace, dataset.path, parent, [tmp_path / "none"])
        with pytest.raises(InputError, match=r"field 'hold_out', dataset .*pooling: mean against cls"):
            fit(workspace, dataset.path, parent, [with_recipe(dataset.manifest, tmp_path / "cls", pooling="cls")])
    assert started == [] and children(parent) == {}


# The evaluation


class Evaluation:
    """`evaluate_decoder` with a decoder of the tests' own in the place of the trained one; its pages are kept."""

    def __init__(self, workspace: Workspace, dataset: Dataset, parent: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        (folder / "training").mkdir(parents=True)
        (folder / "training" / "metrics.jsonl").write_text(json.dumps({"step": 8}) + "\n")
        (folder / "card.md").write_text("# Inverter")
        self.trained = TrainedDecoder(path=folder, run_id=child_run(parent, "decoder", {}, {}, dataset.manifest))
        self.pages: list[str] = []
        self._parent, self._patch = parent, patch
        patch.setattr(tasks.evaluate_decoder, "create_markdown_artifact", lambda page, **_: self.pages.append(page))
        patch.setattr(ceiling, "TEXTS", TEXTS)

    def of(self, decoder: Decoder, dataset: Path, *hold_out: Path) -> EvaluatedDecoder:
        self._patch.setattr(tasks.evaluate_decoder, "load_decoder", loader(decoder))
        with disable_run_logger():
            return evaluate_decoder.fn(self.trained, dataset, list(hold_out), GateThresholds(), self._parent, "cpu")

    @property
    def run(self) -> Any:
        return MlflowClient().get_run(self.trained.run_id)

    def artifact(self, path: str, folder: Path) -> str:
        return Path(MlflowClient().download_artifacts(self.trained.run_id, path, str(folder))).read_text(encoding="utf-8")


@pytest.fixture()
def evaluation(workspace: Workspace, dataset: Dataset, parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    return Evaluation(workspace, dataset, parent, tmp_path / "decoders" / "minilm-0", monkeypatch)


def test_a_decoder_that_reads_its_encoder_is_available_and_its_figures_and_texts_are_logged(
    evaluation: Evaluation, dataset: Dataset, encoder: Encoder, parent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated = evaluation.of(LookupDecoder(dataset, encoder), dataset.path)
    assert evaluated.available and [gate["name"] for gate in evaluated.gates] == ["encoder_contract", "decoder_ceiling"]
    run = evaluation.run
    scores = {"bleu", "token_f1", "rouge_l", "roundtrip_cosine", "exact", "distinct_2", "repetition", "steps"}
    assert {f"decode/A_{name}" for name in scores} | {f"decode/A_first_{name}" for name in scores} <= set(run.data.metrics)
    assert run.data.metrics["decode/A_bleu"] == pytest.approx(100) and run.data.metrics["gate/decoder_ceiling"] > 0.999
    assert {point.step for point in MlflowClient().get_metric_history(run.info.run_id, "decode/A_bleu")} == {8}
    assert (run.info.status, run.data.tags["lvm.gate"]) == ("FINISHED", "pass")
    assert MlflowClient().get_run(parent).data.metrics["decode/A_token_f1"] == pytest.approx(1)
    assert evaluation.artifact("card.md", tmp_path) == "# Inverter"
    table = json.loads(evaluation.artifact("decode/samples.json", tmp_path))
    assert len(table["data"]) == TEXTS and {"truth", "first", "corrected", "n_tokens"} <= set(table["columns"])
    assert json.loads(evaluation.artifact("decode/summary.json", tmp_path)) == evaluated.summary
    assert evaluation.pages == [evaluation.artifact("decode/text.md", tmp_path)]
    for part in ("encoder_contract", "decoder_ceiling", "ROUGE-L", "**Samples**", str(evaluation.trained.path)):
        assert part in evaluation.pages[0]
    shown = capsys.readouterr().out
    assert shown.startswith(f"Decoder of minilm on {TEXTS} texts")
    assert shown.splitlines()[-1] == f"Next: lvm decode --decoder {evaluation.trained.path} --text-file FILE"


def test_a_decoder_that_cannot_read_is_reported_as_unavailable_with_the_remedy(
    evaluation: Evaluation, dataset: Dataset, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated = evaluation.of(ConstantDecoder(encoder), dataset.path)
    assert not evaluated.available and evaluated.gates[0]["passed"]
    assert evaluation.run.data.tags["lvm.gate"] == "fail" and evaluation.run.info.status == "FINISHED"
    for words in (evaluation.pages[0], " ".join(capsys.readouterr().out.split())):
        assert "DECODING UNAVAILABLE. Decoder of minilm" in words and "train it longer (decoder.rounds)" in words


def test_it_is_evaluated_on_validation_texts_of_the_first_held_out_dataset(
    evaluation: Evaluation, dataset: Dataset, encoder: Encoder, tmp_path: Path
) -> None:
    evaluated = evaluation.of(LookupDecoder(dataset, encoder), dataset.path)
    val = {dataset.doc_ids[doc] for doc in dataset.docs("val")}
    assert {sample["doc_id"] for sample in evaluated.summary["samples"]} <= val
    asked: list[Path] = []
    opened = tasks.evaluate_decoder.open_dataset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.evaluate_decoder, "open_dataset", lambda path: (asked.append(path), opened(path))[1])
        other = copy_of(dataset, tmp_path / "held")
        evaluation.of(LookupDecoder(dataset, encoder), dataset.path, other, tmp_path / "never read")
    assert asked == [dataset.path, other]


def test_stored_vectors_of_another_encoder_are_refused(evaluation: Evaluation, dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    flipped = with_vectors(dataset, tmp_path / "flipped", lambda vectors: vectors[:, ::-1])
    with pytest.raises(GateRefused, match="encoder_contract"):
        evaluation.of(ConstantDecoder(encoder), flipped)
    assert evaluation.run.data.metrics["gate/encoder_contract"] < 0.5
    assert "decode/A_bleu" not in evaluation.run.data.metrics


def test_scores_by_length_add_up_to_all_texts(evaluation: Evaluation, dataset: Dataset, encoder: Encoder) -> None:
    summary = evaluation.of(ConstantDecoder(encoder), dataset.path).summary
    for scores in summary["scores"].values():
        assert sum(bucket["n"] for bucket in scores["by_length"].values()) == scores["n"] == TEXTS
        weighed = sum(bucket["n"] * bucket["token_f1"] for bucket in scores["by_length"].values()) / TEXTS
        assert weighed == pytest.approx(scores["token_f1"])
    assert not [name for name in ceiling_metrics(summary) if "by_length" in name or name.endswith("_n")]
