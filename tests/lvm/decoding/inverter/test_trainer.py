"""An inverter learns, a killed training goes on as if it had not been killed, and one that diverges is never saved."""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lvm.atomic_io import sha256_file
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter import trainer as training
from lvm.decoding.inverter.decoder import Inverter, Search
from lvm.decoding.inverter.folder import load_decoder_folder, read_decoder_config
from lvm.decoding.inverter.loss import add_noise
from lvm.decoding.inverter.model import InverterModel
from lvm.decoding.inverter.optimizers import make_optimizers
from lvm.decoding.inverter.train import train_decoder
from lvm.decoding.text_metrics import text_scores
from lvm.errors import TrainingDiverged
from lvm.training.metrics_log import Event
from tests.support.tiny_decoder import CPU, SETTINGS, SHORT, BagEncoder, Killed, Learned, events, heart_trainer, set_options, tiny


def what_repeats(out: Path) -> dict[str, Any]:
    """All that is equal in two runs with the same seed: metrics, weights, tokenizer, configuration, card."""
    lines = [(event["step"], event["total_steps"], event["epoch"], event["metrics"]) for event in events(out)]
    files = {name: sha256_file(out / name) for name in ("model.safetensors", "tokenizer.json", "card.md")}
    return {"metrics": lines, "config": read_decoder_config(out).model_dump(), **files}


# It learns


def test_texts_are_learned_by_heart_and_corrections_help(dataset: Dataset, encoder: Encoder, learned: Learned, tmp_path: Path) -> None:
    unlearned = heart_trainer(dataset, encoder, tmp_path, learned.texts)
    nonsense = [found.text for found in Inverter(unlearned.writer(), encoder, Search(0)).decode(encoder.encode(learned.texts))]
    assert text_scores(nonsense, learned.texts).token_f1 < 0.1
    rounds = [event["metrics"] for event in events(learned.folder) if "val/token_f1_0_corrections" in event["metrics"]]
    assert len(rounds) == 2
    assert rounds[-1]["val/token_f1_0_corrections"] > 0.6
    assert rounds[-1]["val/roundtrip_cosine_0_corrections"] > 0.7
    for found in rounds:
        assert found["val/roundtrip_cosine_1_corrections"] >= found["val/roundtrip_cosine_0_corrections"]


def test_both_losses_fall(learned: Learned) -> None:
    for name in ("train/loss_first", "train/loss_correction"):
        losses = [event["metrics"][name] for event in events(learned.folder) if name in event["metrics"]]
        assert losses[-1] < 0.5 * losses[0] < 0.5 * 10, name
    shares = ["train/loss_correction" in event["metrics"] for event in events(learned.folder) if "train/learning_rate" in event["metrics"]]
    assert not any(shares[: len(shares) // 2]) and any(shares), "corrections begin after their share of the rounds"


def test_folder_and_metrics_of_a_run(whole: Path, dataset: Dataset, bags: BagEncoder) -> None:
    config = read_decoder_config(whole)
    assert (config.train, config.recipe, config.dataset_digest) == (tiny(*SHORT), bags.recipe, dataset.manifest.digest)
    assert config.held_out == [dataset.manifest.digest]
    found = events(whole)
    steps = [event["step"] for event in found if "train/learning_rate" in event["metrics"]]
    assert steps == list(range(6)) and {event["total_steps"] for event in found} == {6}
    validated = [event for event in found if "val/bleu_1_corrections" in event["metrics"]]
    assert [(event["step"], event["epoch"]) for event in validated] == [(2, 1), (4, 2), (6, 3)]
    assert all("system/round_seconds" in event["timing"] for event in validated)
    assert config.measured == validated[-1]["metrics"] and len(config.measured) == 6
    card = (whole / "card.md").read_text()
    assert f"{config.measured['val/roundtrip_cosine_1_corrections']:.4f}" in card and "6 steps of 32 texts" in card
    assert load_decoder_folder(whole, CPU).tokenizer.get_vocab_size() == 400


@pytest.mark.parametrize(("share", "corrections"), [(0.25, 2), (1.0, 8)])
def test_a_round_corrects_the_share_asked_for(
    dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch, share: float, corrections: int
) -> None:
    quick.setattr(training, "LOG_EVERY", 1)
    config = tiny("batch=8", "rounds=1", "passes=1", "correct_from=0", f"corrections={share}")
    train_decoder(config, dataset, [], bags, tmp_path / "out", CPU)
    kinds = [event["metrics"].keys() for event in events(tmp_path / "out")]
    assert sum("train/loss_correction" in kind for kind in kinds) == corrections
    assert sum("train/loss_first" in kind for kind in kinds) == 8 - corrections


# Kills


def test_killed_training_resumes_with_identical_weights_and_metrics(
    whole: Path, dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch
) -> None:
    quick.setattr(training, "LOG_EVERY", 1)
    out, first_steps = tmp_path / "killed", []
    # A round is two steps and a validation. The kills fall in the first round, in the second, and between validation and saving.
    for attempt, last in enumerate((2, 5, 3, math.inf)):
        heard: list[int] = []

        def die(event: Event, heard: list[int] = heard, last: float = last) -> None:
            heard.append(event["step"])
            if len(heard) == last:
                raise Killed

        torch.manual_seed(1000 + attempt)  # nothing may depend on the random state of the killed process
        np.random.seed(1000 + attempt)
        with contextlib.suppress(Killed):
            train_decoder(tiny(*SHORT), dataset, [], bags, out, CPU, resume=True, on_event=die)
        first_steps.append(heard[0])
        assert (out / "config.json").exists() == (last == math.inf)
    assert first_steps == [0, 0, 2, 2], "each attempt went on from the last saved round"
    assert what_repeats(out) == what_repeats(whole)


@pytest.mark.slow
def test_sigkilled_process_resumes_bit_for_bit(dataset: Dataset, tmp_path: Path) -> None:
    script = (
        "import lvm.decoding.inverter.train as a, lvm.decoding.inverter.trainer as b; a.VALIDATION_TEXTS = 8; b.SAMPLE = 64; "
        "b.LOG_EVERY = 1; from lvm.cli.main import main; main()"
    )
    arguments = ["train-decoder", str(dataset.path), "--device", "cpu", *set_options(*SETTINGS, *SHORT, "rounds=12")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}

    def start(out: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", script, *arguments, "--out", str(tmp_path / out), *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def lines() -> int:
        file = tmp_path / "killed" / "training" / "metrics.jsonl"
        return len(file.read_bytes().splitlines()) if file.exists() else 0

    undisturbed = start("whole")
    words = undisturbed.communicate(timeout=300)[1]
    assert undisturbed.returncode == 0, words.decode()
    dice = random.Random()
    rounds = set()
    for attempt in range(5):  # a round logs three lines; each kill falls in another pair of the first ten rounds
        last_line = dice.randint(6 * attempt + 1, 6 * attempt + 6)
        process = start("killed", "--resume")
        deadline = time.monotonic() + 120
        while lines() < last_line and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        words = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, words.decode()
        if (tmp_path / "killed" / "training" / "state.safetensors").exists():
            with safe_open(tmp_path / "killed" / "training" / "state.safetensors", "pt") as file:
                rounds.add(json.loads(file.metadata()["progress"])["round"])
    last = start("killed", "--resume")
    words = last.communicate(timeout=300)[1]
    assert last.returncode == 0, words.decode()
    assert len(rounds) >= 3, "the kills fell in different rounds of the run"
    assert what_repeats(tmp_path / "killed") == what_repeats(tmp_path / "whole")


# Divergence


@pytest.mark.parametrize("log_every", [1, 1_000], ids=["seen in the log", "between two log lines"])
def test_a_diverging_training_stops_and_is_never_saved(
    dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch, log_every: int
) -> None:
    quick.setattr(training, "LOG_EVERY", log_every)
    with pytest.raises(TrainingDiverged, match=r"step \d+: lower decoder\.learning_rate and start over with --fresh"):
        train_decoder(tiny(*SHORT, "learning_rate=1e30"), dataset, [], bags, tmp_path / "out", CPU)
    assert not (tmp_path / "out" / "config.json").exists()
    assert not (tmp_path / "out" / "training" / "state.safetensors").exists()


# The parts of a step


def test_every_weight_has_one_optimizer_and_embeddings_have_adamw() -> None:
    model = InverterModel(tiny().model, 32)
    muon, adamw = make_optimizers(model, tiny())
    by_muon, by_adamw = ({id(w) for group in o.param_groups for w in group["params"]} for o in (muon, adamw))
    assert not by_muon & by_adamw and by_muon | by_adamw == {id(w) for w in model.parameters()}
    assert id(model.t5.shared.weight) in by_adamw and id(model.target.weight) in by_muon
    assert all(w.ndim == 2 for w in model.parameters() if id(w) in by_muon)


def test_noise_has_at_most_the_length_asked_for_and_differs_each_time(dataset: Dataset) -> None:
    vectors, greatest = torch.from_numpy(dataset.vectors[:400] * 3.0), 0.1
    torch.manual_seed(0)
    first, second = ((add_noise(vectors, greatest) - vectors).norm(dim=1) / 3 for _ in range(2))
    assert float(first.max()) < 1.25 * greatest and float(first.median()) < greatest / 2
    assert float(first.max()) > 0.8 * greatest and not torch.equal(first, second)
    assert torch.equal(add_noise(vectors, 0.0), vectors)
