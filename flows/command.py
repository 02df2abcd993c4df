"""A flow as a command: an error that the user can act on becomes one sentence and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lvm.atomic_io import is_full
from lvm.errors import OUT_OF_MEMORY, GateRefused, InputError, ran_out_of_memory

PresetOption = Annotated[str | None, typer.Option(help="Named settings; 'lvm settings' lists the presets.")]
ConfigOption = Annotated[Path | None, typer.Option(dir_okay=False, help="YAML file of settings; overrides --preset.")]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", help="FIELD=VALUE, as model.width=512 or lstm:model.width=512; overrides --config. Repeatable; see 'lvm settings'."
    ),
]
ColumnOption = Annotated[list[str], typer.Option(help="FIELD=COLUMN, as text=content: the column that holds a field. Repeatable.")]
ChunkedOption = Annotated[bool, typer.Option("--chunked", help="The text is cut already: a row a chunk, or a list a document.")]
KeepGoingOption = Annotated[bool, typer.Option("--keep-going", help="Go on although more than half of the input is left out.")]


def require_at_least(name: str, value: int | None, least: int) -> None:
    """Raise `InputError` when the parameter `name` is given and less than `least`: a flow can be started without its command."""
    if value is not None and value < least:
        raise InputError(f"field {name!r} is {value}: give {least} or more, or leave it out")


@contextmanager
def exit_on_refusal(name: str) -> Iterator[None]:
    """Exit with one sentence and the right code when the flow `name` refuses its input, a gate fails, or disk or accelerator is full."""
    try:
        yield
    except (InputError, GateRefused) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if is_full(error):
            remedy = "no space left on the disk: free some, then run the same command again"
        elif ran_out_of_memory(error):
            remedy = OUT_OF_MEMORY
        else:
            raise
        print(f"{name}: {remedy} ({error})", file=sys.stderr)
        sys.exit(InputError.exit_code)
