"""The command keeps its word: tables for people, one JSON object for programs, exit codes, sentences instead of tracebacks."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.support.commands import SMALL, copy_of, lvm, refusal, tree

# What programs read


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
    assert "baselines" in model_gates.out


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


# Exit code 2: bad usage or input


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
def test_damaged_dataset_is_refused_by_every_command_and_not_repaired(command, harm, says, dataset, trained_lstm, untouched, tmp_path):
    folder = copy_of(dataset, tmp_path / "data")
    harm(folder)
    before = tree(folder)
    given = {"OUT": untouched, "MODEL": trained_lstm[1]}
    name, *options = [given.get(word, word) for word in command]
    message = refusal(lvm(name, folder, *options, *(["--json"] if command[0] != "train" else [])))
    assert says in message and str(folder) in message
    assert tree(folder) == before


def test_model_that_is_not_there_is_refused(dataset, tmp_path):
    for command in ("validate", "diagnose"):
        assert "holds no config.json" in refusal(lvm(command, dataset.path, "--model", tmp_path / "none"))


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
