"""`lvm train-decoder`: train a decoder for an encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from lvm.config import read_settings
from lvm.reports.next_command import next_command

if TYPE_CHECKING:
    from lvm.decoding.inverter.folder import DecoderConfig
    from lvm.reports.tables.table import Table


def train_decoder(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the decoder.")],
    hold_out: Annotated[
        list[Path] | None, typer.Option(help="Another dataset whose validation and test texts must not be trained on; repeatable.")
    ] = None,
    device: DevicesOption = "auto",
    preset: PresetOption = None,
    config_file: ConfigOption = None,
    setting: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last round; a finished run is kept.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier run first.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a decoder for the encoder of a dataset, on one device or on several together."""
    from lvm.data.dataset import open_dataset
    from lvm.data.encoders import load_encoder
    from lvm.decoding.inverter.train import train_decoder as run
    from lvm.devices import resolve_device
    from lvm.training.distributed import join, own_device
    from lvm.training.metrics_log import Event

    if until_stdin_closes:
        exit_with_stdin()
    one_process_a_device(device)
    config = read_settings(preset, config_file, setting or [], reads=("decoder",)).decoder
    data, others = open_dataset(dataset), [open_dataset(path) for path in hold_out or []]
    place = resolve_device(own_device(device))
    encoder = load_encoder(data.manifest.recipe.name, str(place))
    ranks = join(place)
    if ranks.rank == 0:
        people.print(f"decoder of {encoder.recipe.name} on {place}, {ranks.world} process(es), dataset {data.manifest.digest[:12]}")
        people.print_json(data=config.model_dump())
    with progress_bar("steps", shown=ranks.rank == 0) as bar:
        task = bar.add_task("decoder", total=None, visible=False)

        def show(event: Event) -> None:
            bar.update(task, completed=event["step"], total=event["total_steps"], visible=True)
            if not any(name.startswith("train/") for name in event["metrics"]):
                bar.console.print(round_line(event))

        done = run(config, data, others, encoder, out, place, resume, fresh, show, ranks)
    ranks.leave()
    if ranks.rank:
        return
    value: dict[str, Any] = {"path": str(out), "parameters": done.parameters, "measured": done.measured}
    output(value, as_json, result_table(done).rich(), next_command("decode", "--decoder", out, "--text-file", "FILE"))


def result_table(done: "DecoderConfig") -> "Table":
    """The validation metrics of a finished decoder."""
    from lvm.reports.tables.table import Table

    rows = [[name, f"{value:.4f}"] for name, value in done.measured.items()]
    return Table(f"Decoder of {done.recipe.name}: {done.parameters:,} parameters", ["validation", "value"], rows)


def round_line(event: dict[str, Any]) -> str:
    """One line a round: validation metrics, timings, time left."""
    timing = {name: value for name, value in event["timing"].items() if name.startswith("system/") and "eta" not in name}
    shown = ", ".join(f"{name.partition('/')[2]} {value:,.4g}" for name, value in {**event["metrics"], **timing}.items())
    return f"round {event['epoch']}: {shown}, {event['timing']['system/eta_seconds']:.0f} s left"
