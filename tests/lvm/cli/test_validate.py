"""`lvm validate`: every metric with its interval beside the baselines, figures, and questions that it refuses."""

import json

import pytest

from lvm.evaluation.evaluate import SKILLS
from lvm.gates.result import GateResult, verdict
from tests.support.commands import ABSENT_DEVICE, copy_of, lvm, refusal


def test_validate_json_is_each_metric_with_its_interval_beside_the_baselines(dataset, trained_lstm):
    finished = lvm("validate", dataset.path, "--model", trained_lstm[1], "--split", "val", "--decoder", "none", "--json")
    found = finished.json
    assert finished.code == 0
    for name in (*SKILLS, *(f"skill_{metric}" for metric in SKILLS)):
        assert set(found["metrics"][name]) == {"value", "low", "high"}
        assert found["metrics"][name]["low"] <= found["metrics"][name]["value"] <= found["metrics"][name]["high"]
    best = max(values["cosine"] for values in found["baselines"].values())
    assert found["metrics"]["skill_cosine"]["value"] == pytest.approx(found["metrics"]["cosine"]["value"] - best, abs=1e-5)
    assert {"mean_vector", "copy_last", "ewma", "ridge_knn", "whitened_ridge"} <= set(found["baselines"])
    assert found["verdict"] == verdict([GateResult(**gate) for gate in found["gates"]])
    own = json.loads((trained_lstm[1] / "config.json").read_text())["best"]["val/cosine"]
    assert found["metrics"]["cosine"]["value"] == pytest.approx(own, abs=1e-4), "what training wrote down is what is measured again"


def test_validate_tells_how_many_configurations_looked_at_the_test_documents(dataset, trained_lstm, tmp_path):
    data = copy_of(dataset, tmp_path / "data" / "copy")
    command = ("validate", data, "--model", trained_lstm[1], "--decoder", "none")
    looks = lvm(*command, "--json").json["looks"]
    assert (looks["configurations"], looks["counted"]) == (1, True)
    assert [str(file) for file in (tmp_path / "data" / "looks").glob("*.json")] == [looks["file"]]
    assert "The test documents of this split were looked at by 1 configuration\n" in lvm(*command).out
    assert lvm(*command, "--split", "val", "--json").json["looks"] is None


def test_validate_warns_where_its_look_cannot_be_counted(dataset, trained_lstm, tmp_path):
    data = copy_of(dataset, tmp_path / "data" / "copy")
    (tmp_path / "data" / "looks").write_text("in the way, as a disk that is read-only is")
    finished = lvm("validate", data, "--model", trained_lstm[1], "--decoder", "none")
    assert finished.code == 0
    assert "looked at by 0 configurations\nThis look is not counted, since " in finished.out


def test_validate_ends_with_what_the_gates_say_and_draws_figures_where_it_is_told_to(dataset, trained_lstm, tmp_path):
    finished = lvm("validate", dataset.path, "--model", trained_lstm[1], "--decoder", "none", "--figures", tmp_path / "figures")
    assert finished.code == 0, "it reports the gates, and refuses nothing"
    assert "\nGates of the model: FAIL: baselines" in finished.out, "four test documents are too few"
    for name in ("skill.png", "sigma.png", "ranks.png"):
        assert (tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_dataset_of_another_recipe_is_refused_with_the_fields_that_differ(unnormalised, trained_lstm):
    message = refusal(lvm("validate", unnormalised[1], "--model", trained_lstm[1], "--split", "all"))
    assert "normalize: True against False" in message and str(unnormalised[1]) in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--split", "tset"), "expected val, test or all"),
        (("--split", "all"), "this model was trained on"),
        (("--device", ABSENT_DEVICE), "is not on"),
    ],
)
def test_validate_refuses_questions_it_cannot_answer_honestly(arguments, says, dataset, trained_lstm):
    assert says in refusal(lvm("validate", dataset.path, "--model", trained_lstm[1], *arguments))


def test_validate_refuses_a_context_that_the_pool_could_offer_as_a_wrong_answer(dataset, trained_lstm):
    finished = lvm("validate", dataset.path, "--model", trained_lstm[1], "--context-length", 65)
    assert finished.code == 2 and "--context-length" in finished.err and "64" in finished.err
