"""`lvm train`: its JSON object, what it tells people, and trainings that are refused or diverge."""

import json
import re

import pytest

from lvm.evaluation.evaluate import SKILLS
from tests.support.commands import ABSENT_DEVICE, SMALL, lvm, refusal, tree
from tests.support.trainings import without_a_gradient


def test_train_json_is_the_path_the_size_and_the_best_epoch(trained_lstm):
    finished, out = trained_lstm
    found = finished.json
    assert finished.code == 0
    assert (found["path"], found["arch"]) == (str(out), "lstm")
    config = json.loads((out / "config.json").read_text())
    assert found["parameters"] == config["parameters"] > 0
    assert found["best"] == config["best"]
    assert {"epoch", *(f"val/{kind}{metric}" for metric in SKILLS for kind in ("", "skill_"))} <= set(found["best"])


def test_the_broken_original_is_trained_by_its_name_and_shown_beside_the_baselines(dataset, tmp_path):
    settings = ("--preset", "legacy", "--set", "loss.mse=2", "--set", "sampler.stretches=64")
    done = lvm("train", dataset.path, "--arch", "gru", "--out", tmp_path / "legacy", *SMALL, *settings)
    assert done.code == 0 and "gru (legacy): " in done.out
    config = json.loads((tmp_path / "legacy" / "config.json").read_text())["train"]
    assert (config["model"]["heads"], config["loss"]["mse"], config["loss"]["infonce"]) == ("legacy", 2, 0)
    shown = " ".join(lvm("validate", dataset.path, "--model", tmp_path / "legacy", "--split", "val", "--decoder", "none").out.split())
    assert "gru (legacy) on val" in shown and "skill over" in shown


def test_train_tells_people_the_configuration_and_each_epoch_on_standard_error(trained_lstm):
    finished, _ = trained_lstm
    assert '"width": 64' in finished.err
    metrics = ", ".join(rf"{label} 0\.\d+ \(skill [+-]0\.\d+\)" for label in ("cosine", "R@1", "R@5", "MRR"))
    assert re.search(f"epoch 0: {metrics}", " ".join(finished.err.split()))


def test_training_whose_loss_does_not_steer_is_refused_with_3_in_one_sentence(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("lvm.training.gradcache.weighted", without_a_gradient("regression"))
    finished = lvm("train", dataset.path, "--arch", "lstm", "--out", tmp_path / "lstm", *SMALL, "--json")
    assert (finished.code, finished.out) == (3, "")
    (sentence,) = (line for line in finished.err.splitlines() if line.startswith("lvm: "))
    assert sentence.startswith("lvm: loss_balance: ") and "No gradient of regression reaches the model" in sentence
    assert "Traceback" not in finished.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--arch", "lstm", "--set", "model.widht=512"), "unknown field 'model.widht'"),
        (("--arch", "lstm", "--set", "colour=red"), "unknown setting 'colour'"),
        (("--arch", "lstm", "--set", "learning_rate=fast"), "field 'learning_rate'"),
        (("--arch", "lstm", "--set", "epochs"), "expected FIELD=VALUE"),
        (("--arch", "lstm", "--set", "epochs.many=1"), "field 'epochs'"),
        (("--arch", "rnn"), "architecture 'rnn' is not known: there are lstm, gru, mamba2, transformer, amn"),
        (("--arch", "gru", "--preset", "new"), "preset 'new' is not known: there are demo, quality, legacy"),
        (("--arch", "lstm", "--device", ABSENT_DEVICE), "is not on this machine"),
        (("--arch", "lstm", "--device", "gpu"), "device 'gpu' is not on this machine"),
        (("--arch", "lstm", "--resume", "--fresh"), "exclude each other"),
    ],
)
def test_train_refuses_in_one_sentence_and_leaves_nothing(arguments, says, dataset, untouched):
    assert says in refusal(lvm("train", dataset.path, "--out", untouched, *arguments))


def test_out_that_holds_a_run_is_refused_and_kept(dataset, trained_lstm):
    before = tree(trained_lstm[1])
    message = refusal(lvm("train", dataset.path, "--arch", "gru", "--out", trained_lstm[1]))
    assert "holds a run already: give --resume to go on, --fresh to start over, or another --out" in message
    message = refusal(lvm("train", dataset.path, "--arch", "gru", "--out", trained_lstm[1], "--resume"))
    assert "another configuration" in message
    assert tree(trained_lstm[1]) == before


def test_training_that_diverges_says_when_and_is_neither_success_nor_bad_input(dataset, tmp_path):
    out = tmp_path / "diverged"
    finished = lvm("train", dataset.path, "--arch", "lstm", "--out", out, *SMALL, "--set", "learning_rate=1e30", "--json")
    assert (finished.code, finished.out) == (1, "")
    assert "lvm: loss" in finished.err and "at step" in finished.err and "Traceback" not in finished.err
    assert not (out / "config.json").exists(), "nothing that a later stage would take for a model"
