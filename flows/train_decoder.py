"""train-decoder: documents to a decoder of their encoder."""

from pathlib import Path
from typing import Annotated

import typer
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

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
from lvm.data.manifest import read_manifest
from lvm.data.sources import FIELDS, Reading
from lvm.devices import resolve_device
from tasks.active_flows import tracked_flow
from tasks.diagnose import diagnose_data
from tasks.evaluate_decoder import EvaluatedDecoder, evaluate_decoder
from tasks.extract import extract_documents
from tasks.train_decoder import fit_decoder
from tasks.workspace import Workspace

SECTIONS = ("chunker", "splits", "gates", "decoder")
"""The settings that this flow reads."""


@flow(name="train-decoder", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def train_decoder(
    sources: list[str] = ["builtin:sotu"],  # noqa: B006 (Prefect shows it as the default; never changed)
    encoder: str = "minilm",
    max_docs: int | None = None,
    hold_out: list[Path] = [],  # noqa: B006
    preset: str | None = None,
    config: Path | None = None,
    settings: list[str] = [],  # noqa: B006
    device: str = "auto",
    fresh: bool = False,
    root: Path = Path(),
    reading: Reading = Reading(),
) -> EvaluatedDecoder:
    """Extract documents, check them, train a decoder of their encoder, and evaluate it on texts that it has not seen.

    Raises `GateRefused` when a gate on the data fails, or when the trained decoder does not fit the stored vectors.

    Args:
        sources: builtin:sotu, folders, files of text or tables, URIs; see docs/data.md.
        encoder: minilm, gtr-t5-base or sentence-transformers:<name or folder>.
        max_docs: Size of a fixed sample of the documents; all of them by default.
        hold_out: Datasets whose validation and test texts are kept out of the training too; the decoder is evaluated on the first one.
        preset: Named settings; 'lvm settings' lists the presets.
        config: YAML file of settings; it overrides the preset.
        settings: Single settings, as decoder.rounds=40 or chunker.max_tokens=32; they override the file.
        device: auto, cpu, mps, cuda or cuda:N.
        fresh: Train again even if a finished run of the same settings and data exists.
        root: Folder for data/, decoders/ and mlruns/.
        reading: columns of other names, as {"text": "content"}; chunked: the text is cut already; keep_going: however much is left out.
    """
    require_at_least("max_docs", max_docs, 2)
    workspace, given = Workspace(root=root), read_settings(preset, config, settings, SECTIONS)
    resolve_device(device)  # what cannot work is refused before anything is written
    for folder in hold_out:
        read_manifest(folder)
    with tracked_flow(workspace) as run:
        dataset = extract_documents(workspace, sources, encoder, max_docs, given.chunker, given.splits, device, reading)
        diagnose_data(dataset, given.gates, run, workspace.figures(run), device)
        trained = fit_decoder(workspace, dataset, hold_out, given, device, run, fresh)
        return evaluate_decoder(trained, dataset, hold_out, given.gates, run, device)


def main(
    source: Annotated[list[str], typer.Option(help="Repeatable; see 'lvm extract --help'.")] = ["builtin:sotu"],  # noqa: B006
    encoder: Annotated[str, typer.Option(help="Encoder recipe.")] = "minilm",
    max_docs: Annotated[int | None, typer.Option(min=2, help="Size of a fixed sample of the documents.")] = None,
    hold_out: Annotated[
        list[Path], typer.Option(help="Dataset whose validation and test texts are kept out of the training too; repeatable.")
    ] = [],  # noqa: B006
    preset: PresetOption = None,
    config: ConfigOption = None,
    setting: SetOption = [],  # noqa: B006
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if a finished run exists.")] = False,
    root: Annotated[Path, typer.Option(help="Folder for data/, decoders/ and mlruns/.")] = Path(),
    column: ColumnOption = [],  # noqa: B006
    chunked: ChunkedOption = False,
    keep_going: KeepGoingOption = False,
) -> None:
    """Run the flow in this process; no server is needed."""
    with exit_on_refusal("train-decoder"):
        reading = Reading(parse_columns(column, FIELDS), chunked, keep_going)
        train_decoder(source, encoder, max_docs, hold_out, preset, config, setting, device, fresh, root, reading)


if __name__ == "__main__":
    typer.run(main)
