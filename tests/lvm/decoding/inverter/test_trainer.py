"""An inverter learns, a killed training goes on as if it had not been, and a broken one is never saved."""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open

from lvm.atomic_io import sha256_file
from lvm.config import DecoderTrainConfig
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.data.unseen import normalised_text
from lvm.decoding.inverter import trainer as training
from lvm.decoding.inverter.decoder import Inverter, Search
from lvm.decoding.inverter.folder import DecoderConfig, load_decoder_folder, read_decoder_config
from lvm.decoding.inverter.holdout import TrainingTexts
from lvm.decoding.inverter.model import InverterModel
from lvm.decoding.inverter.trainer import InverterTrainer, make_optimizers, train_decoder
from lvm.decoding.text_metrics import text_scores
from lvm.errors import InputError, TrainingDiverged
from lvm.training.distributed import Ranks
from lvm.training.metrics_log import Event
from tests.support.tiny_decoder import CPU, SETTINGS, BagEncoder, Learned, heart_trainer, quickly, tiny

SHORT = ("rounds=3", "passes=1", "correct_from=0.3", "batch=32", "model.dropout=0.1")


def events(out: Path) -> list[Event]:
    return [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def what_repeats(out: Path) -> dict[str, Any]:
    """All that a run promises to give again: metrics, weights, tokenizer, configuration, card."""
    lines = [(event["step"], event["total_steps"], event["epoch"], event["metrics"]) for event in events(out)]
    files = {name: sha256_file(out / name) for name in ("model.safetensors", "tokenizer.json", "card.md")}
    return {"metrics": lines, "config": read_decoder_config(out).model_dump(), **files}


class Killed(Exception):
    """Stands in for a kill."""


@pytest.fixture(scope="module")
def whole(dataset: Dataset, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that nothing disturbed; read-only."""
    out = tmp_path_factory.mktemp("whole") / "decoder"
    with quickly() as patch:
        patch.setattr(training, "LOG_EVERY", 1)
        train_decoder(tiny(*SHORT), dataset, [], encoder, out, CPU)
    return out


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
    assert not any(shares[: len(shares) // 2]) and any(shares), "corrections come after their share of the rounds"


def test_folder_and_record_of_a_run(whole: Path, dataset: Dataset, encoder: Encoder) -> None:
    config = read_decoder_config(whole)
    assert (config.train, config.recipe, config.dataset_digest) == (tiny(*SHORT), encoder.recipe, dataset.manifest.digest)
    assert config.held_out == [dataset.manifest.digest]
    found = events(whole)
    steps = [event["step"] for event in found if "train/learning_rate" in event["metrics"]]
    assert steps == list(range(6)) and {event["total_steps"] for event in found} == {6}
    measured = [event for event in found if "val/bleu_1_corrections" in event["metrics"]]
    assert [(event["step"], event["epoch"]) for event in measured] == [(2, 1), (4, 2), (6, 3)]
    assert all("system/round_seconds" in event["timing"] for event in measured)
    assert config.measured == measured[-1]["metrics"] and len(config.measured) == 6
    card = (whole / "card.md").read_text()
    assert f"{config.measured['val/roundtrip_cosine_1_corrections']:.4f}" in card and "6 steps of 32 texts" in card
    assert load_decoder_folder(whole, CPU).tokenizer.get_vocab_size() == 400


def test_neither_tokenizer_nor_network_sees_a_held_out_text(
    dataset: Dataset, encoder: Encoder, tmp_path: Path, quick: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    judged: list[str] = []

    class Noting(InverterTrainer):
        def __init__(self, config: DecoderTrainConfig, texts: TrainingTexts, held: list[str], *rest: Any) -> None:
            seen.extend(texts.texts)
            judged.extend(held)
            raise Killed

    make = training.train_tokenizer
    quick.setattr(training, "InverterTrainer", Noting)
    quick.setattr(training, "train_tokenizer", lambda texts, vocabulary: (seen.extend(texts), make(texts, vocabulary))[1])
    splits = dataset.doc_splits.copy()
    splits[dataset.docs("train")[:5]] = "val"
    other = replace(dataset, doc_splits=splits)
    with pytest.raises(Killed):
        train_decoder(tiny(), dataset, [other], encoder, tmp_path / "out", CPU)
    held = {normalised_text(text) for data in (dataset, other) for split in ("val", "test") for text in data.texts(data.rows(split))}
    assert len(seen) > 2_000 and not held & {normalised_text(text) for text in seen}
    assert len(judged) == 8 and set(judged) <= set(other.texts(other.rows("val"))), "judged by the first of hold_out"


# Kills


def test_killed_training_resumes_with_identical_weights_and_metrics(
    whole: Path, dataset: Dataset, encoder: Encoder, tmp_path: Path, quick: pytest.MonkeyPatch
) -> None:
    quick.setattr(training, "LOG_EVERY", 1)
    out, begun = tmp_path / "killed", []
    # A round is two steps and its measuring. Lives end in the first round, in the second, after measuring that and before saving it.
    for life, last in enumerate((2, 5, 3, math.inf)):
        heard: list[int] = []

        def die(event: Event, heard: list[int] = heard, last: float = last) -> None:
            heard.append(event["step"])
            if len(heard) == last:
                raise Killed

        torch.manual_seed(1000 + life)  # nothing of the dead process may help
        np.random.seed(1000 + life)
        with contextlib.suppress(Killed):
            train_decoder(tiny(*SHORT), dataset, [], encoder, out, CPU, resume=True, on_event=die)
        begun.append(heard[0])
        assert (out / "config.json").exists() == (last == math.inf)
    assert begun == [0, 0, 2, 2], "lives went on from the rounds that were saved"
    assert what_repeats(out) == what_repeats(whole)


@pytest.mark.slow
def test_sigkilled_process_resumes_bit_for_bit(dataset: Dataset, tmp_path: Path) -> None:
    few = "import lvm.decoding.inverter.trainer as t; t.SAMPLE = 64; t.MEASURED = 8; t.LOG_EVERY = 1; from lvm.cli.main import main; main()"
    arguments = ["train-decoder", str(dataset.path), "--device", "cpu"]
    arguments += [f"--set={setting}" for setting in (*SETTINGS, *SHORT, "rounds=12")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}

    def start(out: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", few, *arguments, "--out", str(tmp_path / out), *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def lines() -> int:
        file = tmp_path / "killed" / "training" / "metrics.jsonl"
        return len(file.read_bytes().splitlines()) if file.exists() else 0

    undisturbed = start("whole")
    words = undisturbed.communicate(timeout=300)[1]
    assert undisturbed.returncode == 0, words.decode()
    dice = random.Random()
    rounds = set()
    for life in range(5):  # each ends somewhere in two rounds of its own, two steps and a measuring each, of which two are left at last
        last_line = dice.randint(6 * life + 1, 6 * life + 6)
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
    assert len(rounds) >= 3, "the kills fell on different rounds of the run"
    assert what_repeats(tmp_path / "killed") == what_repeats(tmp_path / "whole")


# Starting, resuming, starting over


@pytest.fixture(scope="module")
def bags(encoder: Encoder) -> BagEncoder:
    return BagEncoder(encoder)


def test_finished_run_is_resumed_at_once_and_left_as_it_is(whole: Path, dataset: Dataset, encoder: Encoder) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*")}

    def never(event: Event) -> None:
        raise AssertionError("trained again")

    found = train_decoder(tiny(*SHORT), dataset, [], encoder, whole, CPU, resume=True, on_event=never)
    assert found == read_decoder_config(whole)
    assert {file: file.stat().st_mtime_ns for file in whole.rglob("*")} == before


def test_a_run_is_neither_overwritten_nor_resumed_as_another(whole: Path, dataset: Dataset, encoder: Encoder) -> None:
    def again(*settings: str, hold_out: tuple[Dataset, ...] = (), **how: bool) -> DecoderConfig:
        return train_decoder(tiny(*SHORT, *settings), dataset, hold_out, encoder, whole, CPU, **how)

    with pytest.raises(InputError, match="holds a run already: give --resume to go on, --fresh to start over, or another --out"):
        again()
    with pytest.raises(InputError, match="--resume and --fresh exclude each other"):
        again(resume=True, fresh=True)
    with pytest.raises(InputError, match="run with another configuration or dataset: give --fresh or another --out"):
        again("seed=1", resume=True)
    with pytest.raises(InputError, match="run with another configuration or dataset"):
        again(hold_out=(dataset,), resume=True)


@pytest.fixture()
def half(dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch) -> Path:
    """A run of which one round is done."""

    def die(event: Event) -> None:
        if event["step"] > 2:
            raise Killed

    quick.setattr(training, "LOG_EVERY", 1)
    with pytest.raises(Killed):
        train_decoder(tiny(*SHORT), dataset, [], bags, tmp_path / "half", CPU, on_event=die)
    return tmp_path / "half"


@pytest.fixture()
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_an_unfinished_run_is_resumed_as_what_it_was_or_not_at_all(half: Path, dataset: Dataset, bags: BagEncoder, group: None) -> None:
    assert not (half / "config.json").exists(), "no later stage takes it for a decoder"
    other = "trained with another configuration, dataset or number of processes: give --fresh or another --out"
    with pytest.raises(InputError, match=other):
        train_decoder(tiny(*SHORT, "learning_rate=0.001"), dataset, [], bags, half, CPU, resume=True)
    with pytest.raises(InputError, match=other):
        train_decoder(tiny(*SHORT), dataset, [dataset], bags, half, CPU, resume=True)
    with pytest.raises(InputError, match=other):
        train_decoder(tiny(*SHORT), dataset, [], bags, half, CPU, resume=True, ranks=Ranks(0, 2))
    with pytest.raises(InputError, match="holds a run already"):
        train_decoder(tiny(*SHORT), dataset, [], bags, half, CPU)
    state = half / "training" / "state.safetensors"
    whole = state.read_bytes()
    for content in (whole[:-100], b"", whole[:2_000]):
        state.write_bytes(content)
        with pytest.raises(InputError, match=r"state\.safetensors is truncated or altered .*give --fresh"):
            train_decoder(tiny(*SHORT), dataset, [], bags, half, CPU, resume=True)
    state.write_bytes(whole)
    (half / "training" / "tokenizer.json").write_text('{"half": ')
    with pytest.raises(InputError, match=r"tokenizer\.json is missing, truncated or altered .*give --fresh"):
        train_decoder(tiny(*SHORT), dataset, [], bags, half, CPU, resume=True)


def test_fresh_clears_whatever_was_there(half: Path, dataset: Dataset, bags: BagEncoder) -> None:
    def die(event: Event) -> None:
        raise Killed

    (half / "config.json").write_text("{}")
    with pytest.raises(Killed):
        train_decoder(tiny(*SHORT, "model.vocabulary=420"), dataset, [], bags, half, CPU, fresh=True, on_event=die)
    assert not (half / "config.json").exists() and not (half / "training" / "state.safetensors").exists()
    assert [event["step"] for event in events(half)] == [0]


def test_a_run_killed_before_its_first_round_leaves_nothing_to_another(
    dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch
) -> None:
    def die(event: Event) -> None:
        raise Killed

    with pytest.raises(Killed):
        train_decoder(tiny(*SHORT), dataset, [], bags, tmp_path / "out", CPU, on_event=die)
    config = tiny(*SHORT, "model.vocabulary=420", "rounds=1")
    train_decoder(config, dataset, [], bags, tmp_path / "out", CPU, resume=True)
    assert load_decoder_folder(tmp_path / "out", CPU).tokenizer.get_vocab_size() == 420


# What is refused


@pytest.mark.parametrize("look", [1, 1_000], ids=["at a look", "between two looks"])
def test_a_training_that_breaks_stops_and_is_never_saved(
    dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch, look: int
) -> None:
    quick.setattr(training, "LOG_EVERY", look)
    with pytest.raises(TrainingDiverged, match=r"step \d+: lower learning_rate, with --fresh"):
        train_decoder(tiny(*SHORT, "learning_rate=1e30"), dataset, [], bags, tmp_path / "out", CPU)
    assert not (tmp_path / "out" / "config.json").exists()
    assert not (tmp_path / "out" / "training" / "state.safetensors").exists()


def test_data_that_cannot_be_learned_from_is_refused(dataset: Dataset, bags: BagEncoder, tmp_path: Path, quick: pytest.MonkeyPatch) -> None:
    def attempt(*settings: str, data: Dataset = dataset, by: Any = bags) -> None:
        train_decoder(tiny(*settings), data, [], by, tmp_path / "out", CPU, fresh=True)

    with pytest.raises(InputError, match="field 'texts' is 64: give at least as many as field 'batch', 65"):
        attempt("batch=65")
    with pytest.raises(InputError, match=r"field 'corrections' is 0\.5 of 1 batches in a round, which is none: give more 'texts'"):
        attempt("batch=64")
    with pytest.raises(InputError, match=r"field 'model.vocabulary' is 65000, but the texts yield"):
        attempt("model.vocabulary=65000")
    unjudged = replace(dataset, doc_splits=np.where(dataset.doc_splits == "val", "train", dataset.doc_splits))
    with pytest.raises(InputError, match=r"split 'val' of dataset .* is empty: give more documents"):
        attempt(data=unjudged)
    with pytest.raises(InputError, match=r"dataset .* pooling: cls against mean"):
        attempt(by=SimpleNamespace(recipe=bags.recipe.model_copy(update={"pooling": "cls"})))
    with pytest.raises(InputError, match="field 'batch' is 16: give a multiple of 3, the number of processes"):
        found = TrainingTexts(["a", "b"], ["x", "x"], 0, 0, frozenset())
        InverterTrainer(
            tiny(), found, ["c"], bags, None, tmp_path, "", CPU, Ranks(0, 3), lambda event: None  # type: ignore[arg-type]
        )  # fmt: skip


def test_a_round_corrects_the_share_asked_for_and_writes_the_rest_from_nothing(dataset: Dataset, bags: BagEncoder, tmp_path: Path) -> None:
    for share, expected in ((0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)):
        out = tmp_path / str(share)
        with quickly() as patch:
            patch.setattr(training, "LOG_EVERY", 1)
            train_decoder(tiny("batch=8", "rounds=1", "passes=1", "correct_from=0", f"corrections={share}"), dataset, [], bags, out, CPU)
        kinds = [event["metrics"].keys() for event in events(out)]
        assert sum("train/loss_correction" in kind for kind in kinds) == expected
        assert sum("train/loss_first" in kind for kind in kinds) == 8 - expected


# The parts of a step


def test_every_weight_has_one_optimizer_and_lookups_have_adamw() -> None:
    model = InverterModel(tiny().model, 32)
    muon, adamw = make_optimizers(model, tiny())
    by_muon, by_adamw = ({id(w) for group in o.param_groups for w in group["params"]} for o in (muon, adamw))
    assert not by_muon & by_adamw and by_muon | by_adamw == {id(w) for w in model.parameters()}
    assert id(model.t5.shared.weight) in by_adamw and id(model.target.weight) in by_muon
    assert all(w.ndim == 2 for w in model.parameters() if id(w) in by_muon)


def test_noise_is_as_long_as_asked_for_at_most_and_differs_each_time(dataset: Dataset, bags: BagEncoder, tmp_path: Path) -> None:
    trainer = heart_trainer(dataset, bags, tmp_path, dataset.texts(np.arange(32)))
    vectors = torch.from_numpy(dataset.vectors[:400] * 3.0)
    first, second = ((trainer.noisy(vectors) - vectors).norm(dim=1) / 3 for _ in range(2))
    assert float(first.max()) < 1.25 * trainer.config.noise and float(first.median()) < trainer.config.noise / 2
    assert float(first.max()) > 0.8 * trainer.config.noise and not torch.equal(first, second)
    trainer.config = trainer.config.model_copy(update={"noise": 0.0})
    assert torch.equal(trainer.noisy(vectors), vectors)
