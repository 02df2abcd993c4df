"""validate-nightly: is the champion still what it was, on documents it has never seen?"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from prefect import flow
from prefect.runtime import flow_run

from flows.command import exit_on_refusal
from lvm.decoding.load import AUTO
from lvm.devices import resolve_device
from lvm.errors import InputError
from lvm.gates.result import require
from tasks.active_flows import registered_flow
from tasks.nightly.alert import announcing_breach
from tasks.nightly.champion import champion_folder, find_champion
from tasks.nightly.documents import gather_documents
from tasks.nightly.evaluate import decode_night, evaluate_champion
from tasks.nightly.report import write_night
from tasks.tracking.runs import PREFECT_RUN, parent_run
from tasks.workspace import Workspace


@flow(name="validate-nightly")
def validate_nightly(
    source: list[str] = [],  # noqa: B006 (Prefect shows it as the default; never changed)
    max_docs: int | None = None,
    date: str | None = None,
    decoder: str = AUTO,
    device: str = "auto",
    root: Path = Path(),
) -> None:
    """Judge the champion on new documents beside its own test documents, test for drift, report, and tell when it fails.

    One night has one entry in MLflow, however often it is validated. Raises `GateRefused`, after everything
    is written, when a gate fails, and `InputError` when there is no champion or nothing to judge it on.

    Args:
        source: Folders of .txt/.md, .jsonl[.gz] or .parquet files, less what the champion's dataset holds; none: of the built-in corpus.
        max_docs: So many of the new documents, others each night; all of them by default, of the built-in corpus 40.
        date: The night, as YYYY-MM-DD; today (UTC) by default.
        decoder: auto (the shipped one where it fits the encoder), none, minilm, a folder of 'lvm train-decoder', or vec2text:<name>.
        device: auto, cpu, mps, cuda or cuda:N.
        root: Folder below which data/, runs/, models/ and mlruns/ are kept.
    """
    workspace, night = Workspace(root=root), night_date(date)
    resolve_device(device)
    if max_docs is not None and max_docs < 1:
        raise InputError(f"field 'max_docs' is {max_docs}: give 1 or more, or leave it out")
    champion_folder(workspace)  # before a folder is made for a champion that does not exist
    asked = {"source": source, "max_docs": max_docs, "date": night, "decoder": decoder, "device": device}
    tags = {PREFECT_RUN: str(flow_run.id)}
    with announcing_breach(night), registered_flow(workspace, flow_run.id), parent_run(workspace, f"nightly-{night}", asked, tags) as run:
        champion = find_champion(workspace)
        documents = gather_documents(workspace, champion, source, max_docs, night, run, device)

        judged = evaluate_champion(champion, documents, run, workspace.figures(run), device)
        text = decode_night(champion, documents, decoder, run, workspace.figures(run), device)

        require(write_night(champion, documents, judged, text, night, run, workspace.figures(run)))


def night_date(asked: str | None) -> str:
    """The night that is meant, as YYYY-MM-DD; `InputError` when it is no date."""
    if asked is None:
        return datetime.now(UTC).date().isoformat()
    try:
        if date.fromisoformat(asked).isoformat() == asked:
            return asked
    except ValueError:
        pass
    raise InputError(f"field 'date' is {asked!r}: give a date as YYYY-MM-DD, such as 2026-01-31")


def main(
    source: Annotated[list[str], typer.Option(help="Repeatable; see 'lvm extract --help'. None: a slice of the built-in corpus.")] = [],  # noqa: B006
    max_docs: Annotated[int | None, typer.Option(min=1, help="So many of the new documents, others each night.")] = None,
    date: Annotated[str | None, typer.Option(help="The night, as YYYY-MM-DD; today (UTC) by default.")] = None,
    decoder: Annotated[str, typer.Option(help="auto, none, minilm, a folder or vec2text:<name>.")] = AUTO,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    root: Annotated[Path, typer.Option(help="Folder for data/, runs/, models/ and mlruns/.")] = Path(),
) -> None:
    """Run the flow here and now, without a server to start."""
    with exit_on_refusal("validate-nightly"):
        validate_nightly(source, max_docs, date, decoder, device, root)


if __name__ == "__main__":
    typer.run(main)
