"""`lvm diagnose`: the gates' results as a table and as JSON, figures, and exit code 3 when a gate refuses."""

import torch

from lvm.cli.diagnose import decoder_gates
from lvm.config import ARCHITECTURES, GateThresholds
from lvm.data.dataset import open_dataset
from tests.support.commands import lvm, with_vectors
from tests.support.swapped_model import Backwards


def test_diagnose_json_is_the_result_of_every_gate_and_of_all(dataset):
    finished = lvm("diagnose", dataset.path, "--json")
    assert finished.code == 0
    assert set(finished.json) == {"passed", "verdict", "gates"}
    assert finished.json["passed"] is True
    assert [gate["name"] for gate in finished.json["gates"]] == ["chunk_order", "split_leakage", "duplicates", "readable", "pairing"]
    for gate in finished.json["gates"]:
        assert set(gate) == {"name", "passed", "severity", "value", "threshold", "reason", "remedy"}


def test_diagnose_checks_model_and_decoder_where_they_are_given_and_draws(dataset, trained_lstm, tmp_path):
    finished = lvm("diagnose", dataset.path, "--model", trained_lstm[1], "--decoder", "auto", "--figures", tmp_path / "figures", "--json")
    gates = {gate["name"]: gate for gate in finished.json["gates"]}
    assert list(gates)[5:] == ["reload_parity", "loss_balance", "baselines", "moment_matching", "collapse", "encoder_contract"]
    assert finished.code == (0 if all(gate["passed"] for gate in gates.values()) else 3)
    assert gates["loss_balance"]["passed"] and "regression 1" in gates["loss_balance"]["reason"]
    assert gates["encoder_contract"]["passed"] and "64 chunks" in gates["encoder_contract"]["reason"]
    drawn = {file.name for file in (tmp_path / "figures").iterdir()}
    assert drawn == {"lags.png", "neighbours.png", "skill.png", "sigma.png", "ranks.png", "shares.png"}


def test_diagnose_says_where_there_is_no_decoder_to_check(unnormalised, capsys):
    data = open_dataset(unnormalised[1])
    assert decoder_gates(data, "none", GateThresholds(), torch.device("cpu")) == [] and capsys.readouterr().err == ""
    assert decoder_gates(data, "auto", GateThresholds(), torch.device("cpu")) == []
    assert f"lvm train-decoder {data.path}" in " ".join(capsys.readouterr().err.split())


def test_lost_chunk_order_is_refused_with_3_and_the_table_still_stands(shuffled):
    finished = lvm("diagnose", shuffled)
    assert finished.code == 3
    assert "chunk_order" in finished.out and "FAIL" in finished.out
    assert "order of chunks was lost" in " ".join(finished.out.replace("│", " ").split())
    assert "Next:" not in finished.out
    assert "Traceback" not in finished.err


def test_lost_chunk_order_is_refused_with_3_and_the_object_still_stands(shuffled, trained_lstm):
    finished = lvm("diagnose", shuffled, "--model", trained_lstm[1], "--json")
    assert finished.code == 3
    assert finished.json["passed"] is False
    failed = [gate["name"] for gate in finished.json["gates"] if not gate["passed"]]
    assert failed == ["chunk_order", "pairing"], "and vectors stand beside other texts"


def test_unshuffled_copy_made_the_same_way_passes(dataset, tmp_path):
    assert lvm("diagnose", with_vectors(dataset, tmp_path / "same", lambda vectors: vectors)).code == 0


def test_model_of_another_class_with_equal_keys_is_refused_with_3_and_the_table_says_so(dataset, trained_lstm, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES._entries, "lstm", Backwards)
    finished = lvm("diagnose", dataset.path, "--model", trained_lstm[1], "--json")
    assert finished.code == 3
    parity = next(gate for gate in finished.json["gates"] if gate["name"] == "reload_parity")
    assert not parity["passed"] and parity["value"] > parity["threshold"] and "train again" in parity["remedy"]
    finished = lvm("validate", dataset.path, "--model", trained_lstm[1])
    assert (finished.code, finished.out) == (3, "") and "lvm: reload_parity: " in finished.err
