"""`lvm migrate`: a dataset, a model or a decoder of an older version, brought to the present format."""

from pathlib import Path
from typing import Annotated

import typer

from lvm.cli.common import DeviceOption, JsonOption, output


def migrate(
    path: Annotated[Path, typer.Argument(help="Folder of a dataset, a model or a decoder.")],
    dataset: Annotated[Path | None, typer.Option(help="The dataset that the model was trained on; others need none.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Bring what an older version wrote to the present format, verify it, and keep the old model beside the new one."""
    from lvm.devices import resolve_device
    from lvm.migration.migrate import migrate as run

    found = run(path, dataset, resolve_device(device))
    value = {"path": str(found.path), "kind": found.kind, "done": found.done, "kept": str(found.kept) if found.kept else None}
    lines = [f"{found.kind} {found.path}: {text}" for text in found.done or ("of the present format already, and verified",)]
    if found.kept:
        lines.append(f"The old {found.kind} is kept as {found.kept}: delete it when it is no longer needed")
    output(value, as_json, *lines)
