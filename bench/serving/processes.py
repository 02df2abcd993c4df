"""Starting the servers that are compared, each as a process, and waiting until they are ready."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

PORTS = {"plain": 8801, "litserve": 8802}
MODULES = {"plain": "bench.serving.plain", "litserve": "bench.serving.lit"}


@contextmanager
def serving(kind: str, model: Path, *words: str, cores: str | None = None) -> Iterator[tuple[int, psutil.Process, float]]:
    """A server's port, its process, and the seconds until it was ready. `kind`: ours, plain or litserve; `cores` such as 0,1."""
    started = time.monotonic()
    with tempfile.NamedTemporaryFile("w+") as log:
        if kind == "ours":
            command = [sys.executable, "-m", "lvm", "serve", "--model", str(model), "--port", "0", "--device", "cpu", *words]
        else:
            command = [sys.executable, "-m", MODULES[kind], "--model", str(model), "--port", str(PORTS[kind])]
        process = subprocess.Popen([*(["taskset", "-c", cores] if cores else []), *command], stdout=log, stderr=log)
        try:
            port = PORTS.get(kind, 0)
            while not _ready(kind, port):
                if process.poll() is not None or time.monotonic() - started > 120:
                    raise SystemExit(f"{kind} did not start:\n{Path(log.name).read_text()[-2000:]}")
                if kind == "ours" and (found := re.search(r"Ready at http://127.0.0.1:(\d+)", Path(log.name).read_text())):
                    port = int(found[1])
                    break
                time.sleep(0.02)
            yield port, psutil.Process(process.pid), time.monotonic() - started
        finally:
            workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
            for worker in workers:  # LitServe's workers outlive it, and would compete with the next server for the cores
                with suppress(psutil.NoSuchProcess):
                    worker.kill()


def _ready(kind: str, port: int) -> bool:
    if kind == "ours":
        return False  # it prints a line when it is ready
    try:
        return httpx.get(f"http://127.0.0.1:{port}/{'health' if kind == 'litserve' else 'docs'}", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def memory(process: psutil.Process) -> float:
    """Resident MiB of a process and its children."""
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 2**20
