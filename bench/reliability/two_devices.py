"""Several devices of one host: one model on two, three models over two, and memory that runs out.

    python -m bench.reliability.two_devices --work /tmp/two --out two_devices.json --commit $(git rev-parse HEAD)

1. One model on one device, with two seeds: how much its loss curve differs by chance.
2. The same on two devices, with the first seed: its curve must differ no more than that.
3. Three models over the two devices at once, each on the device that it leases.
4. On CUDA: a model that is given less memory than it needs, so that it divides its batches.

Each training is `lvm train` in a process of its own. Without a dataset, a made-up one is used. On a machine without
GPUs `--devices cpu,cpu` tries the first three.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.reliability.made_dataset import make_dataset
from lvm.devices import lease, resolve_devices
from lvm.reports.tables.table import Table

SHOWN = 12
# `lvm train` with a share of the device's memory; it prints how much it used.
LIMITED = """
import sys, torch
share, device = float(sys.argv.pop(1)), sys.argv.pop(1)
torch.cuda.set_per_process_memory_fraction(share, device)
from lvm.cli.main import main
try:
    main()
finally:
    print("reserved", torch.cuda.max_memory_reserved(device), file=sys.stderr)
"""
# Many activations and few anchors: pieces save memory on the activations.
HUNGRY = ("model.width=1024", "model.layers=6", "sampler.stretches=256", "sampler.anchors_per_document=4", "epochs=1")
LESS = 0.6


def train(
    dataset: Path, out: Path, arch: str, device: str, settings: list[str], program: tuple[str, ...] = ("-m", "lvm")
) -> dict[str, Any]:
    """Train one model; returns its events, its times and what it printed."""
    words = ["train", str(dataset), "--arch", arch, "--out", str(out), "--device", device, "--fresh"]
    started = time.time()
    done = subprocess.run(
        [sys.executable, *program, *words, *(f"--set={setting}" for setting in settings)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"lvm {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    events = [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"device": device, "started": started, "ended": time.time(), "events": events, "said": done.stderr}


def curve(run: dict[str, Any], name: str) -> dict[int, float]:
    """A metric by step."""
    return {event["step"]: event["metrics"][name] for event in run["events"] if name in event["metrics"]}


def compare(runs: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], Table]:
    """The curves side by side, and how far those of two devices and of another seed are from that of one device."""
    curves = {name: curve(run, "train/loss") for name, run in runs.items()}
    steps = sorted(curves["one"])
    values = {name: np.array([found[step] for step in steps]) for name, found in curves.items()}
    by_devices, by_seed = values["two"] - values["one"], values["other seed"] - values["one"]
    chosen = sorted({int(i) for i in np.linspace(0, len(steps) - 1, min(SHOWN, len(steps)))})
    rows = [
        [str(steps[i]), *(f"{values[name][i]:.4f}" for name in ("one", "other seed", "two")), f"{by_devices[i]:+.4f}", f"{by_seed[i]:+.4f}"]
        for i in chosen
    ]
    columns = ["step", "one device", "another seed", "two devices", "two - one", "other seed - one"]
    found: dict[str, Any] = {
        "steps": len(steps),
        "difference_by_devices": {"mean_size": float(np.abs(by_devices).mean()), "mean": float(by_devices.mean())},
        "difference_by_seed": {"mean_size": float(np.abs(by_seed).mean()), "mean": float(by_seed.mean())},
        "within_noise": bool(np.abs(by_devices).mean() <= np.abs(by_seed).mean()),
    }
    for name, run in runs.items():
        last = {metric: list(curve(run, metric).values())[-1] for metric in ("best/cosine", "best/recall_at_5")}
        speed = [event["timing"]["system/chunks_per_second"] for event in run["events"]][-1]
        found[name] = {"device": run["device"], "seconds": run["ended"] - run["started"], "chunks_per_second": speed, **last}
    return {"curves": curves, **found}, Table("Training loss", columns, rows)


def three_at_once(dataset: Path, work: Path, places: list[str], settings: list[str]) -> list[dict[str, Any]]:
    """Three models over two devices: which device each had, and when."""

    def one(arch: str) -> dict[str, Any]:
        with lease(places) as device:
            held = time.time()
            train(dataset, work / f"three-{arch}", arch, device, settings)
            return {"arch": arch, "device": device, "from": held, "to": time.time()}

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(one, ["lstm", "mamba2", "transformer"]))
    began = min(run["from"] for run in found)
    return [{**run, "from": run["from"] - began, "to": run["to"] - began} for run in found]


def shared_well(runs: list[dict[str, Any]]) -> dict[str, bool]:
    """Whether two and never three trained at once, and never two on one device (on the CPU all have one name)."""
    at_once = max(sum(other["from"] <= run["from"] < other["to"] for other in runs) for run in runs)
    met = any(a["device"] == b["device"] != "cpu" and a["from"] < b["to"] and b["from"] < a["to"] for a in runs for b in runs if a is not b)
    return {"two_at_once": at_once == 2, "met_on_a_device": met}


def memory(dataset: Path, work: Path, device: str) -> dict[str, Any]:
    """A model that needs much memory, trained with all of it and with less than it used."""
    total = torch.cuda.get_device_properties(device).total_memory
    runs = {}
    share = 1.0
    for name in ("all", "less"):
        run = train(dataset, work / f"memory-{name}", "transformer", device, list(HUNGRY), ("-c", LIMITED, str(share), device))
        reserved = int(run["said"].rpartition("reserved ")[2].split()[0])
        pieces = curve(run, "train/micro_batch")
        runs[name] = {"share": share, "reserved_bytes": reserved, "micro_batch": pieces, "loss": curve(run, "train/loss")}
        runs[name]["said"] = [line for line in run["said"].splitlines() if "Out of memory" in line]
        share = LESS * reserved / total
    return runs


def main() -> None:
    """Parse the arguments, run everything, write the results and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="folder that 'lvm extract' wrote; by default one is made up")
    parser.add_argument("--documents", type=int, default=2_000, help="of the made-up dataset")
    parser.add_argument("--dim", type=int, default=384, help="of the made-up dataset")
    parser.add_argument("--devices", default="cuda:0,cuda:1")
    parser.add_argument("--arch", default="lstm")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="field of TrainConfig; repeatable")
    parser.add_argument("--work", type=Path, required=True, help="folder for the dataset and the models")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--commit", required=True, help="the commit that is being measured")
    args = parser.parse_args()

    names = args.devices.split(",")
    on_cuda = resolve_devices(args.devices)[0].type == "cuda"
    places = names if on_cuda else [f"cpu-{i}" for i in range(len(names))]
    machine = [torch.cuda.get_device_name(name) for name in names] if on_cuda else [platform.processor() or platform.machine()]
    dataset = args.dataset or make_dataset(args.work / "dataset", args.documents, args.dim)

    # The first training fits the baselines, so that three at a time need not.
    runs = {
        "one": train(dataset, args.work / "one", args.arch, names[0], args.settings),
        "other seed": train(dataset, args.work / "other-seed", args.arch, names[0], [*args.settings, "seed=1"]),
        "two": train(dataset, args.work / "two", args.arch, args.devices, args.settings),
    }
    together, table = compare(runs)
    three = three_at_once(dataset, args.work, places, args.settings)
    results: dict[str, Any] = {"commit": args.commit, "machine": machine, "devices": args.devices, "torch": torch.__version__}
    results |= {"settings": args.settings, "one_model_on_two": together, "three_models_over_two": {"runs": three, **shared_well(three)}}
    if on_cuda:
        results["memory"] = memory(dataset, args.work, names[0])
    args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    print(table.markdown())
    rows = [[run["arch"], run["device"], f"{run['from']:.1f}", f"{run['to']:.1f}"] for run in three]
    print("\n" + Table("Three models over two devices, seconds", ["model", "device", "from", "to"], rows).markdown() + "\n")
    shown = {key: value for key, value in together.items() if key != "curves"} | shared_well(three)
    if on_cuda:
        shown["memory"] = {name: {k: v for k, v in run.items() if k != "loss"} for name, run in results["memory"].items()}
    print(json.dumps(shown, indent=1))
    if not (together["within_noise"] and shared_well(three) == {"two_at_once": True, "met_on_a_device": False}):
        sys.exit("not as it should be: see above")


if __name__ == "__main__":
    main()
