"""A device is there or refused, and belongs to one holder at a time, however that holder ends."""

import multiprocessing
import os
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from lvm import devices
from lvm.devices import accelerators, lease, lease_folder, resolve_device, resolve_devices, slots
from lvm.errors import InputError

FORK = multiprocessing.get_context("fork")  # a new interpreter would import torch for seconds


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of these tests never meet those of a flow on this machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert lease_folder().parent == tmp_path


def holder(place: str, seconds: float = 0) -> tuple[BaseProcess, Connection]:
    """Another process that leases `place` for some time, and what it says of it."""
    hears, says = FORK.Pipe(duplex=False)

    def hold() -> None:
        says.send("waiting")
        with lease([place], poll_seconds=0.02) as device:
            says.send(f"holding {device}")
            time.sleep(seconds)

    process = FORK.Process(target=hold, daemon=True)
    process.start()
    return process, hears


def heard(other: Connection) -> str:
    assert other.poll(20)
    return str(other.recv())


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
    assert slots(models, device) == ([f"cpu-{i}" for i in range(models)], 1, threads)


@pytest.mark.parametrize(
    ("models", "asked", "each", "threads"),
    [(1, None, 2, 8), (2, None, 1, 8), (3, None, 1, 8), (1, 1, 1, 16), (3, 2, 2, 8)],
)
def test_accelerators_are_shared_out_among_the_models_and_the_cores_among_those_at_work(
    monkeypatch: pytest.MonkeyPatch, models: int, asked: int | None, each: int, threads: int
) -> None:
    with_accelerators(monkeypatch, "cuda:0", "cuda:1")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for device in ("auto", "cuda"):
        assert slots(models, device, asked) == (["cuda:0", "cuda:1"], each, threads)


@pytest.mark.parametrize(("models", "each", "threads"), [(1, 5, 3), (2, 2, 4), (3, 1, 5), (6, 1, 3)])
def test_devices_that_do_not_share_out_evenly_are_leased_all_the_same(
    monkeypatch: pytest.MonkeyPatch, models: int, each: int, threads: int
) -> None:
    found = [f"cuda:{i}" for i in range(5)]
    with_accelerators(monkeypatch, *found)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert slots(models) == (found, each, threads)


def test_a_named_device_is_the_only_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accelerators(monkeypatch, "cuda:0", "cuda:1")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert slots(3, "cuda:1") == (["cuda:1"], 1, 16)
    assert slots(2, "cpu") == (["cpu-0", "cpu-1"], 1, 8)


def test_several_processes_a_model_share_the_cores_of_the_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accelerators(monkeypatch)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert slots(2, "auto", 2) == (["cpu-0", "cpu-1", "cpu-2", "cpu-3"], 2, 4)


@pytest.mark.parametrize(("device", "asked", "there"), [("auto", 3, 2), ("cuda:1", 2, 1), ("auto", 0, 2), ("cuda", -1, 2)])
def test_more_devices_for_a_model_than_there_are_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: int, there: int
) -> None:
    with_accelerators(monkeypatch, "cuda:0", "cuda:1")
    with pytest.raises(InputError, match=f"^field 'devices_per_model' is {asked}: give 1 to {there}, the devices there are$"):
        slots(1, device, asked)


@pytest.mark.parametrize("asked", [0, -2])
def test_no_process_for_a_model_is_refused_on_the_cpu_too(monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    with_accelerators(monkeypatch)
    with pytest.raises(InputError, match=f"^field 'devices_per_model' is {asked}: give 1 or more$"):
        slots(3, "cpu", asked)


def test_devices_that_train_together_are_of_one_kind_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accelerators(monkeypatch, "cuda:0", "cuda:1")
    assert resolve_devices("cuda:0,cuda:1") == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert resolve_devices("cpu,cpu") == [torch.device("cpu")] * 2
    for names in ("cuda:1,cuda:1", "cuda,cuda:0", "cpu,cuda:0"):
        with pytest.raises(InputError, match=f"devices '{names}' cannot train together: name devices of one kind, each accelerator once"):
            resolve_devices(names)
    with pytest.raises(InputError, match="device 'cuda:2' is not on this machine"):
        resolve_devices("cuda:0,cuda:2")


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
        process, other = holder("cuda:0")
        assert heard(other) == "waiting"
        assert not other.poll(0.3), "it waits while the place is held here"
    assert heard(other) == "holding cuda:0"
    process.join(20)
    assert process.exitcode == 0


def test_a_lease_of_several_yields_them_as_one_device_list() -> None:
    places = ["cuda:0", "cuda:1", "cuda:2"]
    with lease(["cpu-0", "cpu-1"], 2) as devices:
        assert devices == "cpu,cpu"
    with lease(places) as one, lease(places, 2) as two:
        assert (one, two) == ("cuda:0", "cuda:1,cuda:2")


def test_who_waits_for_several_places_holds_none_of_them_meanwhile() -> None:
    held = threading.Event()

    def take_both() -> None:
        with lease(["cuda:0", "cuda:1"], 2, poll_seconds=0.005):
            held.set()

    with lease(["cuda:1"]):
        waiting = threading.Thread(target=take_both)
        waiting.start()
        for _ in range(20):
            with lease(["cuda:0"], poll_seconds=0.001):
                assert not held.is_set()
    assert held.wait(20)
    waiting.join(timeout=20)


def test_flows_that_each_need_all_places_in_another_order_never_wait_for_each_other_forever() -> None:
    done: list[str] = []
    met: list[bool] = []
    at_work = threading.Lock()

    def work(places: list[str]) -> None:
        for _ in range(5):
            with lease(places, 2, poll_seconds=0.002) as devices:
                met.append(not at_work.acquire(blocking=False))
                time.sleep(0.002)
                at_work.release()
            done.append(devices)

    orders = [["cuda:0", "cuda:1"], ["cuda:1", "cuda:0"]] * 2
    threads = [threading.Thread(target=work, args=[order]) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(done) == 20 and not any(met)


def test_a_place_is_free_when_its_holder_was_killed() -> None:
    process, other = holder("cuda:0", seconds=600)
    assert (heard(other), heard(other)) == ("waiting", "holding cuda:0")
    leased = threading.Event()

    def wait() -> None:
        with lease(["cuda:0"], poll_seconds=0.01):
            leased.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not leased.wait(0.3)
    process.kill()
    assert leased.wait(20)
    waiting.join(timeout=20)


def test_lock_files_belong_to_the_user_alone() -> None:
    assert lease_folder().stat().st_mode & 0o777 == 0o700
    assert lease_folder().stat().st_uid == os.getuid()
