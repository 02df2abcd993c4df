"""Processes that train together hold the mean of their gradients and the same weights, and write one folder."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lvm import ranks
from lvm.corpus.dataset import Dataset
from lvm.decode import load_decoder
from lvm.decode.folder import read_decoder_config
from lvm.encode.encoder import Encoder
from lvm.ranks import Ranks, join, own_device
from tests.lvm.decode.tiny import CPU, SETTINGS

TOGETHER = """
import hashlib, json, sys, torch
import lvm.decode.training as training
from lvm.ranks import Ranks, join

average, run = Ranks.average, training.InverterTrainer.run

def noted(self, tensors):
    # What each process had, gathered by another way than the one that is tested.
    if self.world > 1 and len(tensors) > 1 and not noted.wrong:
        flat = torch.cat([t.flatten() for t in tensors])
        gathered = [torch.empty_like(flat) for _ in range(self.world)]
        torch.distributed.all_gather(gathered, flat)
        differs = not torch.equal(gathered[0], gathered[1])
        average(self, tensors)
        mean = sum(gathered) / self.world
        noted.wrong = float((torch.cat([t.flatten() for t in tensors]) - mean).abs().max()) + 1e-30 if differs else 1.0
    else:
        average(self, tensors)

def run_and_tell(self):
    texts = self.draw(0).labels.lengths.tolist()
    run(self)
    digest = hashlib.sha256(b"".join(w.detach().numpy().tobytes() for w in self.weights)).hexdigest()
    said = {"rank": self.ranks.rank, "weights": digest, "wrong": noted.wrong, "lengths": texts}
    open(f"{sys.argv[-1]}/said-{self.ranks.rank}.json", "w").write(json.dumps(said))

noted.wrong = 0.0
Ranks.average, training.InverterTrainer.run = noted, run_and_tell
training.SAMPLE, training.MEASURED, training.LOG_EVERY = 64, 8, 1
folder = sys.argv.pop()
sys.argv.append(folder)
from lvm.cli import app
app(sys.argv[1:-1], standalone_mode=False)
"""


# One process


def test_alone_the_mean_is_the_value_itself() -> None:
    values = [torch.randn(3), torch.randn(2, 2)]
    before = [value.clone() for value in values]
    Ranks().average(values)
    Ranks().wait()
    assert all(torch.equal(a, b) for a, b in zip(values, before, strict=True))
    assert Ranks().mean(torch.tensor(2.5)) == 2.5


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join(CPU) == Ranks(0, 1)
    assert not dist.is_initialized()


@pytest.fixture()
def accelerated(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setattr(ranks.torch.cuda, "is_available", lambda: True)
    yield monkeypatch


def test_under_torchrun_every_process_has_the_accelerator_of_its_number(accelerated: pytest.MonkeyPatch) -> None:
    accelerated.setenv("LOCAL_RANK", "3")
    assert (own_device("auto"), own_device("cuda")) == ("cuda:3", "cuda:3")
    assert (own_device("cpu"), own_device("cuda:1")) == ("cpu", "cuda:1")
    accelerated.delenv("LOCAL_RANK")
    assert own_device("auto") == "auto"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without an accelerator")
def test_under_torchrun_without_accelerators_the_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device("auto") == "auto"


# Two processes


def torchrun(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    (folder / "together.py").write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [*launch, folder / "together.py", *arguments, folder]
    return subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_train_one_decoder(dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    settings = [f"--set={setting}" for setting in (*SETTINGS, "rounds=2", "passes=1", "texts=128", "correct_from=0.4")]
    command = ["train-decoder", dataset.path, "--device", "cpu", *settings]
    ended = torchrun(tmp_path, *command, "--out", tmp_path / "out", "--json")
    assert ended.returncode == 0, ended.stderr
    answers = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    assert [json.loads(line)["path"] for line in answers] == [str(tmp_path / "out")], "one of them answers"
    said = [json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in (0, 1)]
    assert said[0]["weights"] == said[1]["weights"]
    assert all(0 < found["wrong"] < 1e-6 for found in said), "gradients differed, and became their mean"
    assert said[0]["lengths"] != said[1]["lengths"] and len(said[0]["lengths"]) == 64, "each draws its own half of the texts"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "card.md", "config.json", "model.safetensors", "tokenizer.json", "training"
    ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out" / "training" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(9), *range(8, 17)]
    assert read_decoder_config(tmp_path / "out").measured == lines[-1]["metrics"]
    assert len(load_decoder(tmp_path / "out", steps=0, encoder=encoder).decode(dataset.vectors[:3])) == 3
    again = torchrun(tmp_path, *command, "--out", tmp_path / "out")
    assert again.returncode != 0 and "holds a run already" in again.stderr
    resumed = torchrun(tmp_path, *command, "--out", tmp_path / "out", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
