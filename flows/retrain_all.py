"""retrain-all: documents to a champion."""

from pathlib import Path
from typing import Annotated

import typer
from prefect import flow
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.command import exit_on_refusal
from lvm.config import ARCHITECTURES as REGISTERED
from lvm.config import ChunkerConfig, train_config
from lvm.data.dataset import read_manifest
from lvm.decoding.load import AUTO
from lvm.devices import slots
from lvm.errors import GateRefused, InputError
from tasks.active_flows import registered_flow
from tasks.decode import decode_challenger, diagnose_decoder
from tasks.diagnose import diagnose_champion, diagnose_data, prepare_baselines
from tasks.extract import extract_documents
from tasks.promote import Promotion, promote_best
from tasks.report import write_report
from tasks.tracking.runs import PREFECT_RUN, parent_run
from tasks.train import not_barred, train_model
from tasks.validate import validate_models
from tasks.workspace import Workspace

ARCHITECTURES = ["lstm", "mamba2", "transformer"]
Architecture = Annotated[str, Field(json_schema_extra={"enum": REGISTERED.names()})]
"""One that Prefect's form offers and its server accepts; whoever calls the flow itself gets the sentence of `train_config`."""


@flow(name="retrain-all", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def retrain_all(
    sources: list[str] = ["builtin:sotu"],  # noqa: B006 (Prefect shows it as the default; never changed)
    encoder: str = "minilm",
    max_docs: int | None = None,
    max_tokens: int = ChunkerConfig().max_tokens,
    architectures: list[Architecture] = ARCHITECTURES,
    settings: list[str] = [],  # noqa: B006
    decoder: str = AUTO,
    device: str = "auto",
    devices_per_model: int | None = None,
    fresh: bool = False,
    root: Path = Path(),
) -> Promotion:
    """Extract documents, refuse what cannot work, train the models in parallel, compare, promote, put the best into words.

    Raises `GateRefused` when a gate on the data or the decoder fails, or no model passes its own.

    Args:
        sources: builtin:sotu, folders of .txt/.md, .jsonl[.gz] or .parquet files.
        encoder: minilm, gtr-t5-base or sentence-transformers:<name or folder>.
        max_docs: A fixed sample of so many documents; all of them by default.
        max_tokens: Token budget of a chunk.
        architectures: Any of lstm, gru, mamba2, transformer, amn.
        settings: Fields of TrainConfig for every model, as epochs=20 or model.width=512.
        decoder: auto (the shipped one where it fits the encoder), none, minilm, a folder of 'lvm train-decoder', or vec2text:<name>.
        device: auto, cpu, mps, cuda or cuda:N.
        devices_per_model: Devices that train one model together; by default as many as there are for each model, one at least.
        fresh: Train again even where a finished run of the same configuration and data exists.
        root: Folder below which data/, runs/, models/ and mlruns/ are kept.
    """
    workspace = Workspace(root=root)
    if not architectures or len(set(architectures)) < len(architectures):
        raise InputError(f"field 'architectures' is {architectures}: name each architecture once")
    places, per_model, threads = slots(len(architectures), device, devices_per_model)
    settings = [f"threads={threads}", *settings]
    for arch in architectures:
        if train_config(arch, 1, settings).reverse:  # refuses an unknown name or field before any work, too
            raise InputError("field 'reverse' makes a model to be compared with, not one to be promoted: train it with 'lvm train'")
    asked = {"sources": sources, "encoder": encoder, "max_docs": max_docs, "max_tokens": max_tokens}
    asked |= {"device": device, "devices_per_model": devices_per_model}
    asked |= {"architectures": architectures, "settings": settings, "decoder": decoder}
    with (
        registered_flow(workspace, flow_run.id),
        parent_run(workspace, flow_run.name or "retrain-all", asked, {PREFECT_RUN: str(flow_run.id)}) as run,
    ):
        dataset = extract_documents(workspace, sources, encoder, max_docs, max_tokens, device)

        diagnose_data(dataset, run, workspace.figures(run), device)
        chosen_decoder = diagnose_decoder(dataset, decoder, run, device)
        champion_stands = diagnose_champion(workspace, dataset, run, device)
        prepare_baselines(dataset, train_config(architectures[0], read_manifest(dataset).recipe.dim, settings), device)

        training = [
            train_model.submit(workspace, dataset, arch, settings, places, run, str(flow_run.id), fresh, per_model)
            for arch in architectures
        ]
        wait(training)  # one that fails must not take its siblings with it
        models = validate_models(not_barred(training), dataset, run, workspace.figures(run), device)

        promotion = promote_best(models, dataset, workspace, champion_stands, device)
        text = decode_challenger(models, promotion, chosen_decoder, dataset, workspace.figures(run), device)
        write_report(models, promotion, text, workspace, dataset, run)
        if promotion.challenger is None:
            raise GateRefused(promotion.reason)
        return promotion


def main(
    source: Annotated[list[str], typer.Option(help="Repeatable; see 'lvm extract --help'.")] = ["builtin:sotu"],  # noqa: B006
    encoder: Annotated[str, typer.Option(help="Encoder recipe.")] = "minilm",
    max_docs: Annotated[int | None, typer.Option(min=2, help="A fixed sample of so many documents.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Token budget of a chunk.")] = ChunkerConfig().max_tokens,
    arch: Annotated[list[str], typer.Option(help="Repeatable.")] = ARCHITECTURES,
    setting: Annotated[list[str], typer.Option("--set", help="Field of TrainConfig, as epochs=20; repeatable.")] = [],  # noqa: B006
    decoder: Annotated[str, typer.Option(help="auto, none, minilm, a folder or vec2text:<name>.")] = AUTO,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    devices_per_model: Annotated[int | None, typer.Option(min=1, help="Devices that train one model together.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is there already.")] = False,
    root: Annotated[Path, typer.Option(help="Folder for data/, runs/, models/ and mlruns/.")] = Path(),
) -> None:
    """Run the flow here and now, without a server to start."""
    with exit_on_refusal("retrain-all"):
        retrain_all(source, encoder, max_docs, max_tokens, arch, setting, decoder, device, devices_per_model, fresh, root)


if __name__ == "__main__":
    typer.run(main)
