"""`lvm train-decoder` keeps its word: a table or one JSON object, exit codes, and a next command that works as printed."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvm.data.dataset import Dataset
from lvm.decoding.inverter import trainer as training
from lvm.decoding.inverter.folder import read_decoder_config
from tests.support.commands import Finished, refusal, tree
from tests.support.commands import lvm as run
from tests.support.tiny_decoder import SETTINGS, quickly, set_options, tiny

SHORT = ("rounds=2", "passes=1", "batch=32")
FIGURES = {f"val/{name}_{steps}_corrections" for name in ("bleu", "token_f1", "roundtrip_cosine") for steps in (0, 1)}


def train(dataset: Dataset | Path, out: Path, *more: object) -> Finished:
    path = dataset if isinstance(dataset, Path) else dataset.path
    with quickly():
        return run("train-decoder", path, "--out", out, "--device", "cpu", *set_options(*SETTINGS, *SHORT), *more)


@pytest.fixture(scope="module")
def made(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Finished]]:
    """A decoder by the command; read-only."""
    out = tmp_path_factory.mktemp("decoders") / "my decoder"
    yield out, train(dataset, out)


def test_people_see_what_is_made_how_good_it_is_and_what_to_do_next(made: tuple[Path, Finished], dataset: Dataset) -> None:
    out, finished = made
    assert finished.code == 0, finished.err
    config = read_decoder_config(out)
    assert config.train == tiny(*SHORT), "--set reached the training"
    assert f"Decoder of minilm: {config.parameters:,} parameters" in finished.out
    for name, value in config.measured.items():
        assert name in finished.out and f"{value:.4f}" in finished.out
    assert f"decoder of minilm on cpu, 1 process(es), dataset {dataset.manifest.digest[:12]}" in finished.err
    assert '"vocabulary": 400' in finished.err, "the settings are shown at the start"
    assert "round 1: " in finished.err and "round 2: " in finished.err


def test_next_command_decodes_with_the_decoder(made: tuple[Path, Finished], dataset: Dataset, tmp_path: Path) -> None:
    out, finished = made
    line = finished.out.splitlines()[-1]
    assert line.startswith("Next: lvm decode ")
    text = tmp_path / "some text.txt"
    text.write_text("\n".join(dataset.texts(dataset.rows("test")[:2])), encoding="utf-8")
    words = [str(text) if word == "FILE" else word for word in shlex.split(line.removeprefix("Next: lvm "))]
    assert words[1:3] == ["--decoder", str(out)] and str(text) in words
    decoded = run(*words, "--json")
    assert decoded.code == 0, decoded.err
    assert [set(found) for found in decoded.json["results"]] == [{"input", "text", "roundtrip_cosine", "steps"}] * 2


def test_json_is_one_object_and_a_finished_run_is_answered_from_what_it_left(made: tuple[Path, Finished], dataset: Dataset) -> None:
    out, _ = made
    before = tree(out)
    found = train(dataset, out, "--resume", "--json").json
    config = read_decoder_config(out)
    assert found == {"path": str(out), "parameters": config.parameters, "measured": config.measured}
    assert set(found["measured"]) == FIGURES
    assert tree(out) == before


def test_hold_out_is_told_in_the_card_and_in_the_config(dataset: Dataset, tmp_path: Path) -> None:
    finished = train(dataset, tmp_path / "out", "--hold-out", dataset.path, "--set", "decoder.rounds=1", "--json")
    assert finished.code == 0, finished.err
    assert read_decoder_config(tmp_path / "out").held_out == [dataset.manifest.digest] * 2
    assert "never seen" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "decoder.beams=4"), "unknown field 'decoder.beams' (known: model, rounds, "),
        (("--set", "decoder.model.heads=4"), "unknown field 'decoder.model.heads'"),
        (("--set", "decoder.model.width=100"), "field 'decoder.model.width': "),
        (("--set", "decoder.rounds=0"), "field 'decoder.rounds': "),
        (("--set", "decoder.learning_rate=NaN"), "field 'decoder.learning_rate': "),
        (("--set", "decoder.rounds"), "setting 'decoder.rounds': expected FIELD=VALUE"),
        (("--set", "epochs=4"), "setting 'epochs' has no effect here: this command reads the settings of decoder"),
        (("--device", "cuda:99"), "device 'cuda:99' is not on this machine"),
        (("--hold-out", "nowhere"), "dataset nowhere is not a folder"),
        (("--resume", "--fresh"), "--resume and --fresh exclude each other"),
    ],
)
def test_bad_usage_is_one_sentence_and_leaves_no_decoder(dataset: Dataset, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    assert told in refusal(train(dataset, tmp_path / "out", *arguments))
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "is not a folder: make one with 'lvm extract" in refusal(train(tmp_path / "nowhere", tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    assert "has no manifest.json" in refusal(train(tmp_path / "empty", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_decoder_is_not_overwritten(made: tuple[Path, Finished], dataset: Dataset) -> None:
    out, _ = made
    before = tree(out)
    assert "holds a run already: give --resume to go on, --fresh to start over" in refusal(train(dataset, out))
    assert "another configuration or dataset" in refusal(train(dataset, out, "--resume", "--set", "decoder.seed=9"))
    assert tree(out) == before


def test_a_training_that_breaks_ends_with_1_and_one_sentence(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    finished = train(dataset, tmp_path / "out", "--set", "decoder.learning_rate=1e30")
    assert (finished.code, finished.out) == (1, "")
    own = [line for line in finished.err.splitlines() if line.startswith("lvm: ")]
    assert len(own) == 1 and own[0].endswith("lower decoder.learning_rate and start over with --fresh")
    assert "Traceback" not in finished.err and not (tmp_path / "out" / "config.json").exists()


def test_metrics_are_one_json_object_a_line(made: tuple[Path, Finished]) -> None:
    lines = (made[0] / "training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert all(set(event) == {"step", "total_steps", "epoch", "metrics", "timing"} for event in events)
    assert events[-1]["step"] == events[-1]["total_steps"] == 4
