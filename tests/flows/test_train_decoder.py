"""The whole flow, really run: documents to a decoder that decodes although its trainer is killed, and once more without work."""

import contextlib
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from flows.train_decoder import train_decoder
from lvm.data.dataset import open_dataset
from lvm.data.encoders import Encoder
from lvm.data.manifest import read_manifest
from lvm.decoding import evaluate as ceiling
from lvm.decoding.load import load_decoder
from lvm.errors import InputError
from tasks.evaluate_decoder import EvaluatedDecoder
from tests.support.commands import with_recipe
from tests.support.flow_runs import children, files, flow_command, in_prefect, parents, store
from tests.support.processes import events, trainers, until

pytestmark = pytest.mark.slow

DOCUMENTS, TEXTS = 12, 32
MODEL = [
    f"model.{size}" for size in ("width=64", "feed_forward=64", "encoder_layers=1", "decoder_layers=1", "vocabulary=600", "max_tokens=24")
]
SETTINGS = [f"decoder.{setting}" for setting in (*MODEL, "texts=128", "batch=32", "passes=1", "rounds=3")]
ROUNDS, STEPS = 3, [4, 8, 12]


@dataclass(frozen=True)
class First:
    """What the first run of the flow, whose trainer was killed once, left behind."""

    root: Path
    evaluated: EvaluatedDecoder
    terminal: str
    artifacts: dict[str, str]
    killed_at: float


@pytest.fixture(scope="module")
def first(flow_environment: None, small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    """The flow on a dozen documents in an empty folder; its trainer is killed once it has saved a round."""
    root = tmp_path_factory.mktemp("root")
    moments: list[float] = []

    def saved() -> int | None:
        for pid, command in trainers(root / "decoders").items():
            if (Path(command.partition("--out ")[2].split()[0]) / "training" / "state.safetensors").exists():
                return pid
        return None

    def kill() -> None:
        os.kill(until(saved, 300), signal.SIGKILL)
        moments.append(time.time())

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as terminal:
        patch.setattr(ceiling, "TEXTS", TEXTS)
        evaluated = train_decoder(sources=[str(small_corpus)], max_docs=DOCUMENTS, settings=SETTINGS, device="cpu", root=root)
        killer.join(5)
        _, artifacts = in_prefect(parents(root)[0])
        yield First(root, evaluated, terminal.getvalue(), artifacts, *moments)


def rounds(root: Path, run: Any) -> list[int]:
    """Steps at which a run's rounds were measured, as often as they were sent."""
    return sorted(point.step for point in store(root).get_metric_history(run.info.run_id, "val/bleu_0_corrections"))


# The first run


def test_killed_trainer_is_retried_and_continues_from_its_last_round(first):
    found = [e for e in events(first.evaluated.trained.path) if "val/bleu_0_corrections" in e["metrics"]]
    assert [e["epoch"] for e in found] == list(range(1, ROUNDS + 1)), "each round once"
    kept = [e["epoch"] for e in found if e["timing"]["time"] < first.killed_at]
    assert kept and len(kept) < ROUNDS, "what was done before the kill was kept, and not everything was done"
    (parent,) = parents(first.root)[:1]
    killed, finished = children(first.root, parent)
    assert (parent.info.status, killed.info.status, finished.info.status) == ("FINISHED", "FAILED", "FINISHED")
    assert "trainer ended with -9" in killed.data.tags[MLFLOW_RUN_NOTE]
    assert finished.info.run_id == first.evaluated.trained.run_id
    assert rounds(first.root, finished) == STEPS, "the whole curve, each point once"


def test_curves_scores_tags_and_files_stand_in_mlflow_under_the_flow_s_run(first):
    parent = parents(first.root)[0]
    run = children(first.root, parent)[-1]
    assert {"train/loss_first", "train/learning_rate", "system/texts_per_second"} <= set(run.data.metrics)
    scores = first.evaluated.summary["scores"]["corrected"]
    for name in ("bleu", "token_f1", "rouge_l", "roundtrip_cosine"):
        assert run.data.metrics[f"decode/A_{name}"] == pytest.approx(scores[name])
        assert parent.data.metrics[f"decode/A_{name}"] == pytest.approx(scores[name])
    dataset = open_dataset(next((first.root / "data").iterdir()))
    for found in (parent, run):
        assert {i.dataset.digest for i in found.inputs.dataset_inputs} == {dataset.manifest.digest[:12]}
        assert (found.data.tags["lvm.encoder"], found.data.tags["lvm.dataset_digest"]) == ("minilm", dataset.manifest.digest[:12])
    assert run.data.tags["lvm.device"] == "cpu"
    assert (run.data.params["model.width"], run.data.params["rounds"]) == ("64", str(ROUNDS))
    assert files(first.root, run) == {"card.md"}
    assert files(first.root, run, "decode") == {"decode/summary.json", "decode/samples.json", "decode/text.md"}
    assert files(first.root, parent) == {"report.md"}


def test_the_folder_is_a_decoder_that_decodes_as_it_was_evaluated(first, encoder: Encoder):
    folder = first.evaluated.trained.path
    assert folder.parent == first.root / "decoders" and folder.name.startswith("minilm-")
    samples = first.evaluated.summary["samples"]
    assert len(samples) == TEXTS
    decoder = load_decoder(folder, "cpu", None, encoder)
    decoded = decoder.decode(encoder.encode([sample["truth"] for sample in samples]))
    for sample, found in zip(samples, decoded, strict=True):
        assert found.roundtrip_cosine == pytest.approx(sample["roundtrip_cosine"], abs=1e-4)


def test_three_rounds_do_not_make_a_decoder_and_the_report_says_so(first):
    assert not first.evaluated.available
    shown = " ".join(first.terminal.split())
    assert shown.startswith(f"Decoder of minilm on {TEXTS} texts") and "DECODING UNAVAILABLE" in shown
    assert first.terminal.splitlines()[-1] == f"Next: lvm decode --decoder {first.evaluated.trained.path} --text-file FILE"
    assert set(first.artifacts) == {"data-gates", "decoder"}
    assert "decoder_ceiling" in first.artifacts["decoder"] and "DECODING UNAVAILABLE" in first.artifacts["decoder"]


# The second run, as a real command


@pytest.fixture(scope="module")
def second(first: First, small_corpus: Path) -> tuple[subprocess.CompletedProcess[str], bool]:
    """The same again with a Prefect of its own; and whether every file of data and decoder is as it was."""

    def times() -> dict[str, int]:
        kept = [*(first.root / "data").rglob("*.parquet"), *first.evaluated.trained.path.rglob("*")]
        return {str(file): file.stat().st_mtime_ns for file in kept if file.is_file()}

    before = times()
    settings = [f"--set={setting}" for setting in SETTINGS]
    done = flow_command("train_decoder", first.root, "--source", small_corpus, "--max-docs", DOCUMENTS, *settings)
    return done, times() == before and len(before) > 5


def test_second_run_reuses_dataset_and_decoder_and_has_the_whole_curve(first, second):
    done, unchanged = second
    assert done.returncode == 0, done.stderr[-3000:]
    assert unchanged and ", reused" in done.stderr
    assert done.stdout.startswith("Decoder of minilm on ") and "Traceback" not in done.stderr
    old, new = (children(first.root, parent)[-1] for parent in parents(first.root)[:2])
    assert rounds(first.root, old) == rounds(first.root, new) == STEPS
    assert new.info.status == "FINISHED" and new.info.run_id != old.info.run_id


# What is refused


def test_a_dataset_of_another_recipe_cannot_be_held_out_and_nothing_is_trained(first, small_corpus, tmp_path):
    held = with_recipe(read_manifest(next((first.root / "data").iterdir())), tmp_path / "held", pooling="cls")
    before = len(parents(first.root))
    with pytest.raises(InputError, match=r"field 'hold_out', dataset .*pooling: mean against cls"):
        train_decoder([str(small_corpus)], max_docs=DOCUMENTS, hold_out=[held], settings=SETTINGS, device="cpu", root=first.root)
    parent = parents(first.root)[before]
    assert parent.info.status == "FAILED" and children(first.root, parent) == []


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"settings": ["decoder.model.widht=64"]}, "unknown field 'decoder.model.widht'"),
        ({"settings": ["epochs=3"]}, "setting 'epochs' has no effect here: this command reads the settings of "),
        ({"hold_out": ["nowhere"]}, "dataset nowhere is not a folder"),
        ({"device": "cuda:99"}, "is not on this machine"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(asked, says, flow_environment, small_corpus, tmp_path):
    with pytest.raises(InputError, match=says):
        train_decoder(**{"sources": [str(small_corpus)], "device": "cpu", "root": tmp_path, **asked})
    assert list(tmp_path.iterdir()) == []
