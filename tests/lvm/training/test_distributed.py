"""Processes that train one predictor together do what one process does, and write one folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from lvm.data.dataset import Dataset
from lvm.errors import InputError
from lvm.models.checkpoint import read_config
from lvm.training import distributed as ranks
from lvm.training.distributed import Ranks, join, own_device
from lvm.training.trainer import Trainer, train
from tests.support.commands import lvm
from tests.support.processes import until
from tests.support.together import torchrun
from tests.support.trainings import CPU, TINY, events, tiny, what_repeats

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


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [5, 6, 16])
def test_shares_are_the_whole_and_differ_by_one_at_most(world: int, count: int) -> None:
    shares = [list(range(count))[Ranks(rank, world).share(count)] for rank in range(world)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_list_names_one_device_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for local, device in (("0", "cuda:1"), ("1", "cuda:3")):
        monkeypatch.setenv("LOCAL_RANK", local)
        assert own_device("cuda:1,cuda:3") == device
    with pytest.raises(InputError, match="device 'cuda:0,cuda:1,cuda:2' names 3 devices for 2 processes: name one for each"):
        own_device("cuda:0,cuda:1,cuda:2")


def test_devices_without_collectives_are_refused_before_any_process_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="device 'mps' cannot be one of 2: several processes train on cuda or cpu"):
        join(torch.device("mps"))
    assert not dist.is_initialized()


def test_fewer_stretches_than_processes_are_refused_by_name(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(tiny(dataset, "sampler.stretches=2"), dataset, tmp_path, CPU, ranks=Ranks(0, 3))
    batch = next(trainer.sampler.epoch(0))
    with pytest.raises(InputError, match=r"a batch holds 2 stretches, fewer than there are processes \(3\): .*sampler\.stretches"):
        trainer.gradients(trainer.read(batch), 0, False)


# Two processes


GRADIENTS = """
import sys
import torch
from safetensors.torch import save_file
from lvm.training.distributed import join
from tests.lvm.training.test_distributed import one_step

folder = sys.argv[-1]
ranks = join(torch.device("cpu"))
for size in (0, 2):
    save_file(one_step(sys.argv[1], ranks, size, sys.argv[2]), f"{folder}/{ranks.rank}-{size}.safetensors")
ranks.leave()
"""


def one_step(path: str, ranks: Ranks, size: int, out: str) -> dict[str, torch.Tensor]:
    """Losses, gradient shares and gradients of one batch of seven stretches: an odd number, so that shares differ."""
    from lvm.data.dataset import open_dataset

    dataset = open_dataset(Path(path))
    equal = [f"loss.{name}=1" for name in ("norm", "infonce", "moments", "variance")]
    config = tiny(dataset, "sampler.stretches=7", "sampler.anchors_per_document=20", "model.dropout=0", *equal)
    trainer = Trainer(config, dataset, Path(out), CPU, ranks=ranks)
    torch.manual_seed(1)
    for head in (trainer.model.decoder_residual, trainer.model.cosine_residual):
        torch.nn.init.normal_(head.fc2.weight, std=0.1)
    trainer.gradients.micro_batch = size
    vectors = trainer.read(next(trainer.sampler.epoch(0)))
    assert len(vectors.negatives) and vectors.anchors.sum() < vectors.valid.sum()
    losses = trainer.gradients(vectors, 0, True)
    found = {f"loss {name}": value for name, value in losses.terms.items()} | {"loss": losses.total}
    found |= {name: torch.tensor(value) for name, value in losses.shares.items()}
    return found | {f"gradient {name}": w.grad for name, w in trainer.model.named_parameters() if w.grad is not None}


@pytest.mark.slow
def test_two_processes_have_the_losses_and_gradients_of_one(dataset: Dataset, tmp_path: Path) -> None:
    alone = one_step(str(dataset.path), Ranks(), 0, str(tmp_path / "alone"))
    ended = torchrun(tmp_path, GRADIENTS, dataset.path, tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    assert len(alone) == 1 + 2 * 5 + len([w for w in alone if w.startswith("gradient ")])
    for size in (0, 2):
        together = [load_file(tmp_path / f"{rank}-{size}.safetensors") for rank in (0, 1)]
        for name, expected in alone.items():
            assert torch.equal(together[0][name], together[1][name]), name
            difference = float((together[0][name] - expected).norm() / expected.norm())
            assert difference < 1e-4, (name, size, difference)


TOGETHER = ("epochs=8", "patience=100", "threads=1")  # long enough to be killed in the middle


def command(dataset: Dataset, out: Path, *more: str, device: str = "cpu,cpu") -> subprocess.Popen[str]:
    """`lvm train` as a user types it; on two devices, here of the CPU, where `device` names two."""
    settings = [f"--set={setting}" for setting in (*TINY, *TOGETHER)]
    words = [sys.executable, "-m", "lvm", "train", str(dataset.path), "--arch", "lstm", "--out", str(out), "--device", device]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*words, *settings, *more], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """What it printed, once it ended as it should."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out, err


@pytest.fixture(scope="module")
def pair(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that two processes trained; read-only."""
    out = tmp_path_factory.mktemp("pair") / "run"
    printed, _ = said(command(dataset, out, "--json"))
    assert [json.loads(line)["path"] for line in printed.splitlines()] == [str(out)], "one of them answers"
    return out


@pytest.mark.slow
def test_two_processes_train_bit_for_bit_what_one_trains_that_takes_the_batch_in_two(pair: Path, dataset: Dataset, tmp_path: Path) -> None:
    """Dropout included, since it follows from a stretch's place in the batch."""
    config = tiny(dataset, *TOGETHER)
    alone = Trainer(config, dataset, tmp_path / "alone", CPU)
    alone.gradients.micro_batch = alone.progress.micro_batch = config.sampler.stretches // 2
    alone.run()
    assert what_repeats(tmp_path / "alone") == what_repeats(pair)
    assert {file.name for file in pair.rglob("*")} == {file.name for file in (tmp_path / "alone").rglob("*")}


@pytest.mark.slow
def test_a_killed_process_ends_the_training_which_resumes_bit_for_bit(pair: Path, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = command(dataset, out)
    until(lambda: any("val/cosine" in event["metrics"] for event in complete(out)))
    state = out / "training" / "state.safetensors"
    until(state.exists)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(max(workers), signal.SIGKILL)
    said(process, -signal.SIGKILL)
    assert not (out / "config.json").exists()
    shutil.copytree(out, tmp_path / "other")
    said(command(dataset, out, "--resume"))
    assert what_repeats(out) == what_repeats(pair)
    # Another number of processes goes on from the same state: the same batches, other dropout.
    done = train(tiny(dataset, *TOGETHER), dataset, tmp_path / "other", CPU, resume=True)
    assert [event["step"] for event in events(tmp_path / "other")] == [event["step"] for event in events(pair)]
    assert done.best["val/cosine"] == pytest.approx(read_config(pair).best["val/cosine"], abs=0.01)


def complete(out: Path) -> list[dict[str, Any]]:
    """Whole lines of a run that may not have begun."""
    file = out / "training" / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")] if file.exists() else []


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for child, parent in (line.split() for line in listed.splitlines()) if int(parent) == pid]


SHORT = """
import sys
import torch
import lvm.training.trainer as training
from lvm.training.distributed import Ranks

begin = training.Trainer.__init__

def init(self, *rest, **more):
    begin(self, *rest, **more)

    def allocate(module, inputs):
        # Memory of the second process alone is too small.
        if self.ranks.rank == 1 and module.training and len(inputs[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    self.model.register_forward_pre_hook(allocate)

training.Trainer.__init__ = init
from lvm.cli.main import app
app(sys.argv[1:-1], standalone_mode=False)
"""


@pytest.mark.slow
def test_memory_that_runs_out_in_one_process_halves_the_pieces_of_all(dataset: Dataset, tmp_path: Path) -> None:
    settings = [f"--set={setting}" for setting in (*TINY, "epochs=1")]
    words = ["train", dataset.path, "--arch", "lstm", "--out", tmp_path / "run", "--device", "cpu", *settings]
    ended = torchrun(tmp_path, SHORT, *words)
    assert ended.returncode == 0, ended.stderr
    told = [event for event in events(tmp_path / "run") if "train/micro_batch" in event["metrics"]]
    assert [(event["step"], event["metrics"]["train/micro_batch"]) for event in told] == [(0, 2.0)]
    sentence = "Out of memory at step 0: from here on 2 stretches at a time, gradients still of all 8 of a batch"
    assert " ".join(ended.stderr.split()).count(sentence) == 1


@pytest.mark.slow
def test_input_that_all_refuse_is_refused_with_its_exit_code(pair: Path, dataset: Dataset) -> None:
    _, err = said(command(dataset, pair), 2)
    assert "holds a run already: give --resume to go on, --fresh to start over, or another --out" in err
    assert "Traceback" not in err and "torch.distributed" not in err


def test_devices_that_cannot_train_together_are_refused_before_any_process_starts(dataset: Dataset, tmp_path: Path) -> None:
    found = lvm("train", dataset.path, "--arch", "lstm", "--out", tmp_path / "run", "--device", "cpu,cuda:99")
    assert (found.code, found.out) == (2, "") and "device 'cuda:99' is not on this machine" in found.err
