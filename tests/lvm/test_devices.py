"""A device is there or refused, and belongs to one holder at a time, however that holder ends."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch

from lvm import devices
from lvm.devices import accelerators, lease, lease_folder, resolve_device, slots
from lvm.errors import InputError

HOLDER = """
import sys, time
from lvm.devices import lease
print("waiting", flush=True)
with lease(sys.argv[1].split(","), poll_seconds=0.02) as device:
    print("holding", device, flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of these tests never meet those of a flow on this machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert lease_folder().parent == tmp_path


def holder(places: str, seconds: float = 0) -> subprocess.Popen[str]:
    """Another process that leases one of `places`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tempfile.gettempdir())}
    return subprocess.Popen([sys.executable, "-c", HOLDER, places, str(seconds)], env=environment, stdout=subprocess.PIPE, text=True)


def with_accelerators(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: list(names))


# Devices


def test_auto_is_the_first_accelerator_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(resolve_device("auto")) == (accelerators() or ["cpu"])[0]
    with_accelerators(monkeypatch, "cuda:0", "cuda:1")
    assert resolve_device("auto") == torch.device("cuda:0") == resolve_device("cuda")
    with_accelerators(monkeypatch)
    assert resolve_device("auto") == torch.device("cpu")


def test_cpu_is_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accelerators(monkeypatch, "cuda:0")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:97", "tpu", "", "CPU", "gpu"])
def test_absent_device_is_refused_and_never_replaced(name: str) -> None:
    with pytest.raises(InputError, match=f"device '{name}' is not on this machine: there are .*cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_accelerator_on_a_host_without_one_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_accelerators(monkeypatch)
    with pytest.raises(InputError, match="is not on this machine: there are cpu"):
        resolve_device(name)
    with pytest.raises(InputError, match="is not on this machine: there are cpu"):
        slots(3, name)


# Places


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize(("models", "cores", "threads"), [(1, 8, 8), (3, 8, 2), (4, 2, 1)])
def test_models_share_the_cores_of_a_host_without_accelerators(
    monkeypatch: pytest.MonkeyPatch, device: str, models: int, cores: int, threads: int
) -> None:
    with_accelerators(monkeypatch)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert slots(models, device) == ([f"cpu-{i}" for i in range(models)], threads)


@pytest.mark.parametrize(("models", "threads"), [(1, 16), (2, 8), (3, 8)])
def test_each_accelerator_is_one_place_and_the_cores_are_shared_by_those_at_work(
    monkeypatch: pytest.MonkeyPatch, models: int, threads: int
) -> None:
    with_accelerators(monkeypatch, "cuda:0", "cuda:1")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for device in ("auto", "cuda"):
        assert slots(models, device) == (["cuda:0", "cuda:1"], threads)


def test_a_named_device_is_the_only_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accelerators(monkeypatch, "cuda:0", "cuda:1")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert slots(3, "cuda:1") == (["cuda:1"], 16)
    assert slots(2, "cpu") == (["cpu-0", "cpu-1"], 8)


# Leases


def test_a_lease_yields_the_device_of_its_place() -> None:
    for place, device in (("cpu-2", "cpu"), ("cuda:1", "cuda:1"), ("mps", "mps")):
        with lease([place]) as leased:
            assert leased == device


def test_the_next_free_place_is_leased() -> None:
    with lease(["cuda:0", "cuda:1"]) as first, lease(["cuda:0", "cuda:1"]) as second:
        assert (first, second) == ("cuda:0", "cuda:1")


def test_a_lease_ends_with_its_block_even_when_that_fails() -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), lease(["cuda:0"], poll_seconds=0.01):
            1 / 0  # noqa: B018
    with lease(["cuda:0"]) as device:
        assert device == "cuda:0"


def test_threads_never_meet_on_a_place_and_all_get_their_turn() -> None:
    places, at_work, most, done, met = ["cuda:0", "cuda:1"], dict.fromkeys(["cuda:0", "cuda:1"], 0), 0, [], []

    def work() -> None:
        nonlocal most
        with lease(places, poll_seconds=0.005) as device:
            at_work[device] += 1
            most = max(most, sum(at_work.values()))
            met.append(at_work[device] > 1)
            time.sleep(0.02)
            at_work[device] -= 1
        done.append(device)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(done) == 8 and not any(met)
    assert most == 2, "both places were in use at once"


def test_two_processes_never_hold_one_place() -> None:
    with lease(["cuda:0"]):
        other = holder("cuda:0")
        assert other.stdout is not None and other.stdout.readline() == "waiting\n"
        answers: list[str] = []
        reader = threading.Thread(target=lambda: answers.append(other.stdout.readline()))  # type: ignore[union-attr]
        reader.start()
        reader.join(timeout=0.5)
        assert not answers, "it waits while the place is held here"
    reader.join(timeout=20)
    assert answers == ["holding cuda:0\n"]
    assert other.wait(timeout=20) == 0


@pytest.mark.slow
def test_a_place_is_free_when_its_holder_was_killed() -> None:
    other = holder("cuda:0", seconds=600)
    assert other.stdout is not None and other.stdout.readline() == "waiting\n" and other.stdout.readline() == "holding cuda:0\n"
    leased = threading.Event()

    def wait() -> None:
        with lease(["cuda:0"], poll_seconds=0.01):
            leased.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not leased.wait(0.5)
    other.send_signal(signal.SIGKILL)
    assert other.wait(timeout=20) == -signal.SIGKILL
    assert leased.wait(20)
    waiting.join(timeout=20)


def test_lock_files_belong_to_the_user_alone() -> None:
    assert lease_folder().stat().st_mode & 0o777 == 0o700
    assert lease_folder().stat().st_uid == os.getuid()
