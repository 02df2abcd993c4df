"""`lvm import`: vectors that exist already to a dataset."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvm.cli.common import ColumnOption, ConfigOption, DeviceOption, JsonOption, PresetOption, SetOption, output, progress_bar
from lvm.config import read_settings
from lvm.data.sources import by_reason
from lvm.reports.next_command import next_command

if TYPE_CHECKING:
    from lvm.data.importer.run import Imported


def import_vectors(
    files: Annotated[list[Path], typer.Argument(help="Parquet or Arrow files, folders of them, .npz files, or an .npy file with --ids.")],
    recipe: Annotated[Path, typer.Option(help="YAML or JSON file with the encoder's recipe: the fields of 'recipe' in a manifest.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the dataset.")],
    ids: Annotated[Path | None, typer.Option(help="Table with a row for each vector of an .npy file.")] = None,
    column: ColumnOption = None,
    in_order: Annotated[bool, typer.Option("--in-order", help="Rows of a document stand in its order; no chunk_index is read.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on when more than half of the documents cannot be used.")] = False,
    preset: PresetOption = None,
    config_file: ConfigOption = None,
    setting: SetOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn vectors that exist already into a dataset, with the recipe of the encoder that made them. The setting `splits` divides it.

    Columns: embedding, doc_id and chunk_index, optionally text and source; other common names are found by themselves.
    """
    from lvm.data.columns import parse_columns
    from lvm.data.importer.fields import ALIASES
    from lvm.data.importer.recipe_file import read_recipe
    from lvm.data.importer.run import import_vectors as run
    from lvm.devices import resolve_device

    splits = read_settings(preset, config_file, setting or [], reads=("splits",)).splits
    declared, columns, place = read_recipe(recipe), parse_columns(column or [], ALIASES), str(resolve_device(device))
    with progress_bar("chunks") as bar:
        task = bar.add_task("writing", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        done = run(files, declared, out, splits, columns, ids, in_order, keep_going, place, show)
    m = done.manifest
    value = {"path": str(out), "digest": m.digest, "reused": done.reused, "columns": done.columns, "remarks": done.remarks}
    value |= {"documents": m.documents, "chunks": m.chunks, "skipped": m.skipped, "ignored_fields": m.ignored_fields}
    value |= {"skipped_by_reason": by_reason(item["reason"] for item in m.skipped)}
    output(value, as_json, *_report(done), next_command("diagnose", out))


def _report(done: "Imported") -> list[Any]:
    """What people read of an import: counts a split, what was left out, and the names of columns."""
    from lvm.cli.extract import dataset_report

    parts = dataset_report(done)
    if done.columns:
        parts.append(f"Columns: {', '.join(f'{name} is {column!r}' for name, column in sorted(done.columns.items()))}")
    return parts
