"""What the subcommands share: options, the two ways of printing a result, the progress bar."""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lvm.errors import InputError

people = Console(stderr=True)


DatasetArgument = Annotated[Path, typer.Argument(help="Folder that 'lvm extract' wrote.")]


DecoderOption = Annotated[
    str, typer.Option(help="auto (the shipped one where it fits), none, minilm, a folder of 'lvm train-decoder', or vec2text:<name>.")
]


DeviceOption = Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")]


DevicesOption = Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N; several for one model together as cuda:0,cuda:1.")]


PresetOption = Annotated[str | None, typer.Option("--preset", help="Named settings, see 'lvm settings'.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", dir_okay=False, help="YAML file of settings; --set wins over it.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="FIELD=VALUE, as model.width=512. Repeatable; see 'lvm settings'."),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="FIELD=COLUMN, as doc_id=docid: the column or key of the input that holds a field. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def registered(names: Callable[[], str]) -> str:
    """What `names` lists, for a help text. Where a plug-in cannot be imported, the help says so; the command itself refuses."""
    try:
        return names()
    except InputError as error:
        return str(error)


def output(value: dict[str, Any], as_json: bool, *parts: Any) -> None:
    """Print the JSON object, or the tables and lines of text."""
    if as_json:
        print(json.dumps(value, allow_nan=False))
        return
    console = Console()
    for part in parts:
        # Text goes out as it is: folded to the terminal's width, a command could not be copied.
        console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))


def progress_bar(unit: str, shown: bool = True) -> Progress:
    """A bar on standard error with count, speed and time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=people, transient=False, disable=not shown)


def exit_with_stdin() -> None:
    """From now on, end this process when its parent closes the pipe, which the parent's death does too."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def one_process_a_device(device: str) -> None:
    """Where `device` names several, run this very command in a process for each, and end as they end.

    Goes on where it names one, and in those processes. Raises `InputError` when one of the devices is not there.
    """
    if "," not in device or "LOCAL_RANK" in os.environ:
        return
    from lvm.devices import resolve_devices
    from lvm.training.torchrun import end_as, run_together

    end_as(run_together(len(resolve_devices(device)), sys.argv[1:]))


TextFileOption = Annotated[Path | None, typer.Option(help="UTF-8 file with a text on every line.")]
