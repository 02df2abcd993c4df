"""`lvm train`: one predictor."""

from pathlib import Path
from typing import Annotated, Any

import typer

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
from lvm.config import ARCHITECTURES, read_settings
from lvm.reports.next_command import next_command


def train(
    dataset: DatasetArgument,
    arch: Annotated[str, typer.Option(help="lstm, gru, mamba2, transformer or amn.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the model.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training chunks, at most.")] = None,
    device: DevicesOption = "auto",
    preset: PresetOption = None,
    config_file: ConfigOption = None,
    setting: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint; a finished run is kept.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Clear an earlier run first.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one predictor, on one device or on several together."""
    from lvm.data.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.models.mamba2 import scan_name
    from lvm.reports.tables.table import Table
    from lvm.training.distributed import join, own_device
    from lvm.training.metrics_log import Event
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
        together = f" and {ranks.world - 1} more" if ranks.world > 1 else ""
        people.print(f"{arch} on {place}{together}, dataset {data.manifest.digest[:12]}, {data.manifest.chunks['train']} training chunks")
        people.print_json(data=config.model_dump())
        if arch == "mamba2":
            people.print(f"Mamba2's scan: {scan_name(place)}", style="bold")
    with progress_bar("steps", shown=ranks.rank == 0) as bar:
        task = bar.add_task(arch, total=None, visible=False)

        def show(event: Event) -> None:
            bar.update(task, completed=event["step"], total=event["total_steps"], visible=True)
            if "val/cosine" in event["metrics"]:
                bar.console.print(validation_line(event))
            if "train/micro_batch" in event["metrics"]:
                bar.console.print(memory_line(event, config.sampler.stretches), style="bold")

        done = run(config, data, out, place, resume, fresh, show, ranks, settings.gates)
    ranks.leave()
    if ranks.rank:
        return
    best = done.best
    names = ("val/cosine", "val/skill_cosine", "val/recall_at_5", "val/skill_recall_at_5", "val/shuffle_drop")
    rows = [[name, f"{best[name]:+.4f}"] for name in names]
    title = f"{config.model.name}: {done.parameters:,} parameters, {len(done.history)} epochs, kept epoch {int(best['epoch'])}"
    value = {"path": str(out), "arch": done.arch, "parameters": done.parameters, "best": best}
    output(value, as_json, Table(title, ["validation", "value"], rows).rich(), next_command("validate", dataset, "--model", out))


def validation_line(event: dict[str, Any]) -> str:
    """One line an epoch: what was reached, against what, how fast, how long still."""
    m, t = event["metrics"], event["timing"]
    return (
        f"epoch {event['epoch']}: cosine {m['val/cosine']:.4f} (skill {m['val/skill_cosine']:+.4f}), "
        f"R@5 {m['val/recall_at_5']:.4f} (skill {m['val/skill_recall_at_5']:+.4f}), "
        f"{t['system/chunks_per_second']:,.0f} chunks/s, {t['system/eta_seconds']:.0f} s left"
    )


def memory_line(event: dict[str, Any], stretches: int) -> str:
    """What is done about memory that ran out."""
    size = int(event["metrics"]["train/micro_batch"])
    return f"Out of memory at step {event['step']}: from here on {size} stretches at a time, gradients still of all {stretches} of a batch"
