"""The decode stage: a decoder is held against the data before anything is trained, and the challenger's words are logged."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

import lvm.decoding.load
import tasks.decode
from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding import evaluate as pipeline
from lvm.errors import GateRefused, InputError
from lvm.evaluation.evaluate import evaluate_checkpoint
from lvm.models.checkpoint import load_checkpoint
from tasks.decode import DecodedModel, DecoderChoice, decode_challenger, diagnose_decoder, text_metrics
from tasks.promote import Promotion
from tasks.tracking.logged_model import log_checkpoint
from tasks.tracking.runs import child_run, parent_run
from tasks.train import TrainedModel
from tasks.validate import ValidatedModel
from tasks.workspace import Workspace
from tests.support.commands import with_vectors
from tests.support.lookup_decoder import ConstantDecoder, LookupDecoder, loader
from tests.support.trainings import trained

WINDOWS = 20
LIMITS = GateThresholds()
CHOICE = DecoderChoice(name="minilm", reason="it fits")


@pytest.fixture(scope="module")
def parent(workspace: Workspace) -> str:
    """A flow's run."""
    with parent_run(workspace, "parent", {}, {}) as run:
        return run


@pytest.fixture(scope="module")
def model(workspace: Workspace, dataset: Dataset, parent: str) -> ValidatedModel:
    """A model trained for a few seconds, under a run of its own that has ended."""
    path = trained(dataset)
    run = child_run(parent, "lstm", {}, {}, dataset.manifest)
    MlflowClient().set_terminated(run, "FINISHED")
    checkpoint = load_checkpoint(path, torch.device("cpu"))
    summary = evaluate_checkpoint(dataset, checkpoint, "val").summary()
    logged = log_checkpoint(run, path, checkpoint.config)
    return ValidatedModel(trained=TrainedModel(arch="lstm", path=path, run_id=run), model_id=logged, val=summary, test=summary, gates=[])


def promotion(challenger: str | None) -> Promotion:
    return Promotion(challenger=challenger, promoted=bool(challenger), version="1", reason="tested")


@dataclass(frozen=True)
class Stage:
    """What the stage answered, and the page that it gave Prefect."""

    text: DecodedModel
    pages: list[str]
    run_id: str

    def artifact(self, path: str, folder: Path) -> Any:
        """A JSON artifact of the model's run."""
        return json.loads(Path(MlflowClient().download_artifacts(self.run_id, path, str(folder))).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stage(
    workspace: Workspace, dataset: Dataset, model: ValidatedModel, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> Stage:
    """The challenger, decoded by the oracle."""
    pages: list[str] = []
    with pytest.MonkeyPatch.context() as patch, disable_run_logger():
        patch.setattr(lvm.decoding.load, "load_decoder", loader(LookupDecoder(dataset, encoder)))
        patch.setattr(tasks.decode, "create_markdown_artifact", lambda page, **_: pages.append(page))
        patch.setattr(pipeline, "WINDOWS", WINDOWS)
        text = decode_challenger.fn([model], promotion("lstm"), CHOICE, dataset.path, LIMITS, tmp_path_factory.mktemp("figures"), "cpu")
    return Stage(text, pages, model.trained.run_id)


def test_the_challenger_s_words_are_measured_on_its_run(stage: Stage, dataset: Dataset) -> None:
    assert stage.text.arch == "lstm"
    run = MlflowClient().get_run(stage.run_id)
    scores = stage.text.summary["arms"]
    assert run.data.metrics["decode/bleu"] == pytest.approx(scores["C"]["bleu"])
    assert run.data.metrics["decode/roundtrip_cosine"] == pytest.approx(scores["C"]["roundtrip_cosine"])
    assert run.data.metrics["decode/A_token_f1"] == pytest.approx(scores["A"]["token_f1"])
    assert run.data.metrics["decode/about_C_over_copy_last"] == pytest.approx(stage.text.summary["about"]["C_over_copy_last"]["value"])
    assert run.data.metrics["gate/decoder_abc"] > 0.99
    assert (run.data.tags["lvm.decoder"], run.data.tags["lvm.decoding"]) == ("minilm", "available")
    assert run.info.status == "FINISHED"


def test_samples_stand_in_mlflow_as_a_table_and_as_a_page(stage: Stage, tmp_path: Path) -> None:
    table = stage.artifact("decode/samples.json", tmp_path)
    assert set(table["columns"]) == {"doc_id", "chunk_index", "truth", "inverted", "ceiling", "copy_last", "nearest"}
    assert len(table["data"]) == WINDOWS
    assert stage.artifact("decode/summary.json", tmp_path) == stage.text.summary
    assert [gate["name"] for gate in stage.artifact("gates/decoder.json", tmp_path)["gates"]] == ["encoder_contract", "decoder_abc"]
    files = {file.path for folder in ("decode", "figures") for file in MlflowClient().list_artifacts(stage.run_id, folder)}
    assert {"decode/text.md", "figures/text.png"} <= files
    (page,) = stage.pages
    for part in ("decoder_abc", "nearest real chunk", "By length", "**Samples**"):
        assert part in page


def test_every_metric_has_a_name_that_mlflow_takes_and_a_number(stage: Stage) -> None:
    found = text_metrics(stage.text.summary)
    assert {f"decode/{arm}_bleu" for arm in ("A", "B", "D", "E", "nearest", "copy_last")} | {"decode/bleu"} <= set(found)
    assert {"decode/about_C", "decode/about_C_low", "decode/about_C_high"} <= set(found) or stage.text.summary["about"]["C"]["low"] is None
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())
    assert not [name for name in found if "@" in name or "by_length" in name]


def test_without_a_decoder_or_a_challenger_the_reason_is_told(dataset: Dataset, model: ValidatedModel, tmp_path: Path) -> None:
    none = DecoderChoice(name=None, reason="No decoder for this: lvm train-decoder")
    text = decode_challenger.fn([model], promotion("lstm"), none, dataset.path, LIMITS, tmp_path, "cpu")
    assert (text.arch, text.reason, text.summary) == (None, none.reason, {})
    text = decode_challenger.fn([model], promotion(None), CHOICE, dataset.path, LIMITS, tmp_path, "cpu")
    assert text.arch is None and "no model passed its gates" in text.reason


# Before training


def diagnose(folder: Path, asked: str, run: str, decoder: Any = None, patch: pytest.MonkeyPatch | None = None) -> DecoderChoice:
    if patch is not None:
        patch.setattr(lvm.decoding.load, "load_decoder", loader(decoder))
    with disable_run_logger():
        return diagnose_decoder.fn(folder, asked, LIMITS, run, "cpu")


def test_a_decoder_that_fits_the_stored_vectors_is_chosen_and_the_gate_logged(
    dataset: Dataset, encoder: Encoder, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = diagnose(dataset.path, "auto", parent, ConstantDecoder(encoder), monkeypatch)
    assert choice.name == "minilm" and "64 chunks" in choice.reason
    assert MlflowClient().get_run(parent).data.metrics["gate/encoder_contract"] > 0.999


def test_stored_vectors_of_another_encoder_are_refused(
    dataset: Dataset, encoder: Encoder, parent: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flipped = with_vectors(dataset, tmp_path / "flipped", lambda vectors: vectors[:, ::-1])
    with pytest.raises(GateRefused, match="encoder_contract"):
        diagnose(flipped, "auto", parent, ConstantDecoder(encoder), monkeypatch)


def test_a_decoder_of_another_recipe_is_refused(dataset: Dataset, encoder: Encoder, parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = ConstantDecoder(encoder)
    decoder.recipe = encoder.recipe.model_copy(update={"normalize": False})
    with pytest.raises(InputError, match="normalize: False against True"):
        diagnose(dataset.path, "decoders/mine", parent, decoder, monkeypatch)


def test_no_decoder_is_loaded_where_none_is_wanted(dataset: Dataset, parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(lvm.decoding.load, "load_decoder", never)
    assert diagnose(dataset.path, "none", parent) == DecoderChoice(name=None, reason="Nothing is decoded, as asked")
    # As if the package's decoder were another encoder's.
    monkeypatch.setattr(lvm.decoding.load, "SHIPPED", dataset.manifest.recipe.model_copy(update={"pooling": "cls"}))
    found = diagnose(dataset.path, "auto", parent)
    assert (
        found.name is None
        and found.reason.startswith("No decoder for the recipe minilm")
        and f"lvm train-decoder {dataset.path}" in found.reason
    )
