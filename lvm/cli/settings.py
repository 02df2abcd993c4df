"""`lvm settings`: every setting with its default, bounds and meaning."""

import json
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from lvm.cli.common import JsonOption


def settings(
    as_json: JsonOption = False,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema of a file for --config.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables.")] = False,
) -> None:
    """List every setting: set them by --preset NAME, --config FILE.yaml and --set FIELD=VALUE."""
    from lvm.config import PRESETS
    from lvm.config.listing import READ_BY, list_settings, settings_markdown, settings_schema

    if as_json:
        print(json.dumps([setting.as_json() for setting in list_settings()]))
        return
    if schema:
        print(json.dumps(settings_schema(), indent=2))
        return
    if markdown:
        print(settings_markdown(), end="")
        return
    console = Console()
    found = list_settings()
    for section, commands in READ_BY.items():
        table = Table(title=f"{section}: read by {commands}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("setting, default")
        table.add_column("meaning", ratio=1)
        for setting in (each for each in found if each.section == section):
            bounds = f" ({setting.bounds})" if setting.bounds else ""
            table.add_row(f"{setting.name}\n  {json.dumps(setting.default)}", f"{setting.meaning}{bounds}")
        console.print(table)
    presets = Table(title="presets: --preset NAME", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    presets.add_column("preset")
    presets.add_column("what it is for", ratio=1)
    for name, make in PRESETS.items():
        presets.add_row(name, make.__doc__)
    console.print(presets)
    console.print("Next: lvm train DATASET --arch lstm --out runs/lstm --set model.width=512", soft_wrap=True, highlight=False)
