"""Processes that train a decoder together hold the mean of their gradients and the same weights, and write one folder."""

import json
from pathlib import Path

import pytest

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter.folder import read_decoder_config
from lvm.decoding.load import load_decoder
from tests.support.tiny_decoder import SETTINGS, set_options
from tests.support.together import torchrun

TOGETHER = """
import hashlib, json, sys, torch
import lvm.decoding.inverter.train as train
import lvm.decoding.inverter.trainer as training
from lvm.training.distributed import Ranks, join

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
training.SAMPLE, train.VALIDATION_TEXTS, training.LOG_EVERY = 64, 8, 1
folder = sys.argv.pop()
sys.argv.append(folder)
from lvm.cli.main import app
app(sys.argv[1:-1], standalone_mode=False)
"""


@pytest.mark.slow
def test_two_processes_train_one_decoder(dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    settings = set_options(*SETTINGS, "rounds=2", "passes=1", "texts=128", "correct_from=0.4")
    command = ["train-decoder", dataset.path, "--device", "cpu", *settings]
    ended = torchrun(tmp_path, TOGETHER, *command, "--out", tmp_path / "out", "--json")
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
    again = torchrun(tmp_path, TOGETHER, *command, "--out", tmp_path / "out")
    assert again.returncode != 0 and "holds a run already" in again.stderr
    resumed = torchrun(tmp_path, TOGETHER, *command, "--out", tmp_path / "out", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
