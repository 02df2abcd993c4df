"""retrain-all: documents to a champion."""

from pathlib import Path
from typing import Annotated

import typer
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

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
from lvm.config import ARCHITECTURES, read_settings
from lvm.data.columns import parse_columns
from lvm.data.manifest import read_manifest
from lvm.data.sources import FIELDS, Reading
from lvm.decoding.load import AUTO
from lvm.errors import InputError
from tasks.active_flows import tracked_flow
from tasks.decode import decode_challenger, diagnose_decoder
from tasks.diagnose import diagnose_champion, diagnose_data, prepare_baselines
from tasks.extract import extract_documents
from tasks.promote import Promotion, promote_best
from tasks.report import write_report
from tasks.train import finished_models, plan_training, train_model
from tasks.validate import validate_models
from tasks.workspace import Workspace

DEFAULT_ARCHITECTURES = ["lstm", "mamba2", "transformer"]
Architecture = Annotated[str, Field(json_schema_extra={"enum": ARCHITECTURES.names()})]
"""Prefect's form offers the registered ones, and its server refuses others. A direct call gets the sentence of the registry."""
SECTIONS = ("training", "chunker", "splits", "gates")
"""The settings that this flow reads."""

BUILTIN, MINILM = ["builtin:sotu"], "minilm"
"""What is extracted by default."""


def sections_read(dataset: Path | None, sources: list[str], encoder: str, max_docs: int | None) -> tuple[str, ...]:
    """The settings that are read: with a `dataset` that is there, none that make one.

    Raises `InputError` when it is no dataset, or is given together with what would make another, and when `max_docs` is too small.
    """
    require_at_least("max_docs", max_docs, 2)
    if dataset is None:
        return SECTIONS
    if (sources, encoder, max_docs) != (BUILTIN, MINILM, None):
        raise InputError(f"field 'dataset': {dataset} is there already, so sources, encoder and max_docs have no effect; leave them out")
    read_manifest(dataset)
    return ("training", "gates")


@flow(name="retrain-all", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def retrain_all(
    sources: list[str] = BUILTIN,
    encoder: str = MINILM,
    max_docs: int | None = None,
    architectures: list[Architecture] = DEFAULT_ARCHITECTURES,
    preset: str | None = None,
    config: Path | None = None,
    settings: list[str] = [],  # noqa: B006
    decoder: str = AUTO,
    device: str = "auto",
    devices_per_model: int | None = None,
    fresh: bool = False,
    root: Path = Path(),
    dataset: Path | None = None,
    reading: Reading = Reading(),
) -> Promotion:
    """Extract documents, check them, train the models in parallel, compare them, promote the best one and decode its predictions.

    Raises `GateRefused` when a gate on the data or the decoder fails, or when no model passes its own gates.

    Args:
        sources: builtin:sotu, folders, files of text or tables, URIs; see docs/data.md.
        encoder: minilm, gtr-t5-base or sentence-transformers:<name or folder>.
        max_docs: Size of a fixed sample of the documents; all of them by default.
        architectures: The architectures to train, each once.
        preset: Named settings; 'lvm settings' lists the presets.
        config: YAML file of settings; it overrides the preset.
        settings: Single settings, as epochs=20, splits.val=0.05 or lstm:model.width=512; they override the file.
        decoder: auto (the shipped one if it fits the encoder), none, minilm, a folder of 'lvm train-decoder', or vec2text:<name>.
        device: auto, cpu, mps, cuda or cuda:N.
        devices_per_model: Devices that train one model together; by default all devices are shared out among the models.
        fresh: Train again even if a finished run of the same settings and data exists.
        root: Folder for data/, runs/, models/ and mlruns/.
        dataset: A dataset that is there, such as one of 'lvm import', instead of sources, encoder and max_docs.
        reading: columns of other names, as {"text": "content"}; chunked: the text is cut already; keep_going: however much is left out.
    """
    workspace, given = Workspace(root=root), read_settings(preset, config, settings, sections_read(dataset, sources, encoder, max_docs))
    plan = plan_training(architectures, given, device, devices_per_model)
    with tracked_flow(workspace) as run:
        dataset = dataset or extract_documents(workspace, sources, encoder, max_docs, given.chunker, given.splits, device, reading)
        diagnose_data(dataset, given.gates, run, workspace.figures(run), device)
        chosen_decoder = diagnose_decoder(dataset, decoder, given.gates, run, device)
        champion_passes = diagnose_champion(workspace, dataset, given.gates, run, device)
        prepare_baselines(dataset, plan, device)
        training = [train_model.submit(workspace, dataset, arch, plan, run, fresh) for arch in architectures]
        models = validate_models(finished_models(training), dataset, given.gates, run, workspace.figures(run), device)
        promotion = promote_best(models, dataset, workspace, champion_passes, given.gates, device)
        text = decode_challenger(models, promotion, chosen_decoder, dataset, given.gates, workspace.figures(run), device)
        write_report(models, promotion, text, workspace, dataset, run)
        return promotion.require_challenger()


def main(
    source: Annotated[list[str], typer.Option(help="Repeatable; see 'lvm extract --help'.")] = BUILTIN,
    encoder: Annotated[str, typer.Option(help="Encoder recipe.")] = MINILM,
    max_docs: Annotated[int | None, typer.Option(min=2, help="Size of a fixed sample of the documents.")] = None,
    arch: Annotated[list[str], typer.Option(help="Repeatable.")] = DEFAULT_ARCHITECTURES,
    preset: PresetOption = None,
    config: ConfigOption = None,
    setting: SetOption = [],  # noqa: B006
    decoder: Annotated[str, typer.Option(help="auto, none, minilm, a folder or vec2text:<name>.")] = AUTO,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    devices_per_model: Annotated[int | None, typer.Option(min=1, help="Devices that train one model together.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if a finished run exists.")] = False,
    root: Annotated[Path, typer.Option(help="Folder for data/, runs/, models/ and mlruns/.")] = Path(),
    dataset: Annotated[Path | None, typer.Option(help="A dataset that is there, instead of --source, --encoder and --max-docs.")] = None,
    column: ColumnOption = [],  # noqa: B006
    chunked: ChunkedOption = False,
    keep_going: KeepGoingOption = False,
) -> None:
    """Run the flow in this process; no server is needed."""
    with exit_on_refusal("retrain-all"):
        reading = Reading(parse_columns(column, FIELDS), chunked, keep_going)
        retrain_all(
            source, encoder, max_docs, arch, preset, config, setting, decoder, device, devices_per_model, fresh, root, dataset, reading
        )


if __name__ == "__main__":
    typer.run(main)
