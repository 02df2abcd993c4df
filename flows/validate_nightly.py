"""validate-nightly: is the champion still as good on documents that it has never seen?"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from prefect import flow

from flows.command import (
    ChunkedOption,
    ColumnOption,
    ConfigOption,
    KeepGoingOption,
    PresetOption,
    SetOption,
    exit_on_refusal,
    require_at_least,
)
from lvm.config import read_settings
from lvm.data.columns import parse_columns
from lvm.data.sources import FIELDS, Reading
from lvm.decoding.load import AUTO
from lvm.devices import resolve_device
from lvm.errors import InputError
from lvm.gates.result import require
from tasks.active_flows import tracked_flow
from tasks.nightly.alert import announcing_breach
from tasks.nightly.champion import champion_folder, find_champion
from tasks.nightly.documents import gather_documents
from tasks.nightly.evaluate import decode_night, evaluate_champion
from tasks.nightly.report import write_night
from tasks.workspace import Workspace


@flow(name="validate-nightly")
def validate_nightly(
    source: list[str] = [],  # noqa: B006 (Prefect shows it as the default; never changed)
    max_docs: int | None = None,
    date: str | None = None,
    preset: str | None = None,
    config: Path | None = None,
    settings: list[str] = [],  # noqa: B006
    decoder: str = AUTO,
    device: str = "auto",
    root: Path = Path(),
    reading: Reading = Reading(),
) -> None:
    """Evaluate the champion on new documents and on its own test documents, test for drift, report, and announce a breach.

    A night has one entry in MLflow, however often it is validated. Raises `GateRefused` when a gate fails, after
    everything is written, and `InputError` when there is no champion or no document to evaluate it on.

    Args:
        source: Folders, files of text or tables, URIs (docs/data.md); documents of the champion's dataset are left out. By default
            documents of the built-in corpus.
        max_docs: How many of the new documents to use, others each night; by default all of them, of the built-in corpus 40.
        date: The night, as YYYY-MM-DD; today (UTC) by default.
        preset: Named settings; 'lvm settings' lists the presets.
        config: YAML file of settings; it overrides the preset.
        settings: Thresholds of the gates, as gates.night_level=0.01; they override the file.
        decoder: auto (the shipped one if it fits the encoder), none, minilm, a folder of 'lvm train-decoder', or vec2text:<name>.
        device: auto, cpu, mps, cuda or cuda:N.
        root: Folder for data/, runs/, models/ and mlruns/.
        reading: columns of other names, as {"text": "content"}; chunked: the text is cut already; keep_going: however much is left out.
    """
    workspace, night, limits = Workspace(root=root), night_date(date), read_settings(preset, config, settings, ("gates",)).gates
    resolve_device(device)
    require_at_least("max_docs", max_docs, 1)
    champion_folder(workspace)  # refused here, before any folder is created
    with announcing_breach(night), tracked_flow(workspace, f"nightly-{night}") as run:
        champion = find_champion(workspace)
        documents = gather_documents(workspace, champion, source, max_docs, night, run, device, reading)

        found = evaluate_champion(champion, documents, limits, run, workspace.figures(run), device)
        text = decode_night(champion, documents, decoder, limits, run, workspace.figures(run), device)

        require(write_night(champion, documents, found, text, night, limits, run, workspace.figures(run)))


def night_date(asked: str | None) -> str:
    """The night as YYYY-MM-DD, by default today (UTC); `InputError` when `asked` is no such date."""
    if asked is None:
        return datetime.now(UTC).date().isoformat()
    try:
        if date.fromisoformat(asked).isoformat() == asked:
            return asked
    except ValueError:
        pass
    raise InputError(f"field 'date' is {asked!r}: give a date as YYYY-MM-DD, such as 2026-01-31")


def main(
    source: Annotated[list[str], typer.Option(help="Repeatable; see 'lvm extract --help'. By default the built-in corpus.")] = [],  # noqa: B006
    max_docs: Annotated[int | None, typer.Option(min=1, help="How many of the new documents to use, others each night.")] = None,
    date: Annotated[str | None, typer.Option(help="The night, as YYYY-MM-DD; today (UTC) by default.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    setting: SetOption = [],  # noqa: B006
    decoder: Annotated[str, typer.Option(help="auto, none, minilm, a folder or vec2text:<name>.")] = AUTO,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    root: Annotated[Path, typer.Option(help="Folder for data/, runs/, models/ and mlruns/.")] = Path(),
    column: ColumnOption = [],  # noqa: B006
    chunked: ChunkedOption = False,
    keep_going: KeepGoingOption = False,
) -> None:
    """Run the flow in this process; no server is needed."""
    with exit_on_refusal("validate-nightly"):
        reading = Reading(parse_columns(column, FIELDS), chunked, keep_going)
        validate_nightly(source, max_docs, date, preset, config, setting, decoder, device, root, reading)


if __name__ == "__main__":
    typer.run(main)
