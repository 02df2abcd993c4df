"""`lvm train`: one predictor."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.progress import Progress

from lvm.cli.common import (
    ConfigOption,
    DatasetArgument,
    DevicesOption,
    JsonOption,
    PresetOption,
    SetOption,
    exit_with_stdin,
    one_process_a_device,
    output,
    people,
    progress_bar,
)
from lvm.config import ARCHITECTURES, TrainConfig, read_settings
from lvm.reports.next_command import next_command

if TYPE_CHECKING:  # a command imports torch when it runs, not when its help is shown
    import torch

    from lvm.data.dataset import Dataset
    from lvm.models.checkpoint import CheckpointConfig
    from lvm.training.distributed import Ranks


def train(
    dataset: DatasetArgument,
    arch: Annotated[str, typer.Option(help="Architecture, such as lstm; for a wrong name the error lists them all.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the model.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Most passes over the training chunks.")] = None,
    device: DevicesOption = "auto",
    preset: PresetOption = None,
    config_file: ConfigOption = None,
    setting: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last saved state; a finished run is kept.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier run first.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one predictor, on one device or on several together."""
    from lvm.data.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.training.distributed import join, own_device
    from lvm.training.trainer import train as run

    if until_stdin_closes:
        exit_with_stdin()
    one_process_a_device(device)
    data = open_dataset(dataset)
    chosen = [*(setting or []), *([f"epochs={epochs}"] if epochs else [])]
    settings = read_settings(preset, config_file, chosen, reads=("training", "gates"))
    ARCHITECTURES.require(arch)
    config = settings.train(arch, data.dim)
    place = resolve_device(own_device(device))
    ranks = join(place)
    if ranks.rank == 0:
        print_start(config, data, place, ranks)
    with progress_bar("steps", shown=ranks.rank == 0) as bar:
        done = run(config, data, out, place, resume, fresh, progress_listener(bar, config), ranks, settings.gates)
    ranks.leave()
    if ranks.rank == 0:
        value = {"path": str(out), "arch": done.arch, "parameters": done.parameters, "best": done.best}
        output(value, as_json, result_table(done), next_command("validate", dataset, "--model", out))


def print_start(config: TrainConfig, data: "Dataset", place: "torch.device", ranks: "Ranks") -> None:
    """Print to people what is trained, on what, with which settings."""
    from lvm.models.mamba2 import scan_name

    arch, more = config.model.arch, f" and {ranks.world - 1} more" if ranks.world > 1 else ""
    people.print(f"{arch} on {place}{more}, dataset {data.manifest.digest[:12]}, {data.manifest.chunks['train']} training chunks")
    people.print_json(data=config.model_dump())
    if arch == "mamba2":
        people.print(f"Mamba2's scan: {scan_name(place)}", style="bold")


def progress_listener(bar: Progress, config: TrainConfig) -> Callable[[dict[str, Any]], None]:
    """A listener to the training's events that moves the bar and prints a line after each epoch."""
    task = bar.add_task(config.model.arch, total=None, visible=False)

    def show(event: dict[str, Any]) -> None:
        bar.update(task, completed=event["step"], total=event["total_steps"], visible=True)
        if "val/cosine" in event["metrics"]:
            bar.console.print(validation_line(event))
        if "train/micro_batch" in event["metrics"]:
            bar.console.print(memory_line(event, config.sampler.stretches), style="bold")

    return show


def result_table(done: "CheckpointConfig") -> RenderableType:
    """Validation metrics of the epoch that was kept."""
    from lvm.evaluation.evaluate import SKILLS
    from lvm.reports.tables.table import Table

    names = [f"val/{kind}{metric}" for metric in SKILLS for kind in ("", "skill_")] + ["val/shuffle_drop"]
    rows = [[name, f"{done.best[name]:+.4f}"] for name in names]
    model = f"{done.train.model.name}: {done.parameters:,} parameters"
    title = f"{model}, {len(done.history)} epochs, kept epoch {int(done.best['epoch'])}"
    return Table(title, ["validation", "value"], rows).rich()


def validation_line(event: dict[str, Any]) -> str:
    """One line after an epoch: metrics, skill over the best baseline, speed, remaining time."""
    m, t = event["metrics"], event["timing"]
    shown = {"cosine": "cosine", "recall_at_1": "R@1", "recall_at_5": "R@5", "mrr": "MRR"}
    skills = ", ".join(f"{label} {m[f'val/{metric}']:.4f} (skill {m[f'val/skill_{metric}']:+.4f})" for metric, label in shown.items())
    return f"epoch {event['epoch']}: {skills}, {t['system/chunks_per_second']:,.0f} chunks/s, {t['system/eta_seconds']:.0f} s left"


def memory_line(event: dict[str, Any], stretches: int) -> str:
    """What changes when memory ran out."""
    size = int(event["metrics"]["train/micro_batch"])
    return f"Out of memory at step {event['step']}: from here on {size} stretches at a time, gradients still of all {stretches} of a batch"
