"""The `lvm` command: one subcommand a stage, tables for people, `--json` for programs.

Exit codes: 0 success, 1 a training that diverged, 2 bad usage or input, 3 a gate refuses.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lvm import cli_text
from lvm.cli_common import (
    DatasetArgument,
    DecoderOption,
    DeviceOption,
    DevicesOption,
    JsonOption,
    exit_with_stdin,
    next_command,
    one_process_a_device,
    output,
    people,
    progress_bar,
)
from lvm.cli_decoder import train_decoder
from lvm.cli_explain import explain
from lvm.cli_serve import serve
from lvm.config import ChunkerConfig, parse, train_config
from lvm.errors import OUT_OF_MEMORY, GateRefused, InputError, ran_out_of_memory

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Latent vector models: extract, diagnose, train, validate, text out, serve."
)


def main() -> None:
    """Run the command; turn the library's refusals into sentences and exit codes."""
    # Nothing is fetched unless a hub model is asked for; progress bars of libraries stay off.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app()
    except (InputError, GateRefused) as error:
        print(f"lvm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        # A path of the command line that is not what it should be, found where it is written.
        print(f"lvm: {error.filename}: {error.strerror}: give another path", file=sys.stderr)
        sys.exit(InputError.exit_code)
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        print(f"lvm: {OUT_OF_MEMORY} ({error})", file=sys.stderr)
        sys.exit(InputError.exit_code)


@app.command()
def extract(
    source: Annotated[list[str], typer.Option(help="builtin:sotu, a folder, .jsonl[.gz] or .parquet; repeatable.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the dataset.")],
    encoder: Annotated[str, typer.Option(help="minilm, gtr-t5-base or sentence-transformers:<name or folder>.")] = "minilm",
    max_docs: Annotated[int | None, typer.Option(min=1, help="A fixed sample of so many documents.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Token budget of a chunk.")] = ChunkerConfig().max_tokens,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn documents into a dataset of embedded chunks."""
    from lvm.corpus.extract import extract as run
    from lvm.devices import resolve_device
    from lvm.encode.encoder import load_encoder
    from lvm.report import Rows

    loaded = load_encoder(encoder, str(resolve_device(device)), dtype)
    with progress_bar("chunks") as bar:
        task = bar.add_task("encoding", total=None, visible=False)
        chunker = parse(ChunkerConfig, {"max_tokens": max_tokens})

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        done = run(source, out, loaded, chunker, max_docs=max_docs, progress=show)
    m = done.manifest
    rows = [[split, str(m.documents[split]), str(m.chunks[split])] for split in m.documents]
    title = f"Dataset {m.digest[:12]} at {out}" + (" (reused, nothing to do)" if done.reused else "")
    skips = [[s["doc_id"], s["reason"]] for s in m.skipped[:20]]
    value = {"path": str(out), "digest": m.digest, "reused": done.reused, "encoded_chunks": done.encoded_chunks}
    value |= {"documents": m.documents, "chunks": m.chunks, "skipped": m.skipped, "ignored_fields": m.ignored_fields}
    tables: list[Any] = [Rows(title, ["split", "documents", "chunks"], rows).rich()]
    if m.skipped:
        tables.append(Rows(f"Skipped: {len(m.skipped)} documents", ["doc_id", "reason"], skips).rich())
    if m.ignored_fields:
        tables.append(f"Fields of the input that nothing reads: {', '.join(m.ignored_fields)}")
    output(value, as_json, *tables, next_command("diagnose", out))


@app.command()
def diagnose(
    dataset: DatasetArgument,
    model: Annotated[Path | None, typer.Option(help="Folder of a trained model.")] = None,
    decoder: DecoderOption = "none",
    figures: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for figures.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Hold the data, and a model or a decoder if given, against the gates; exit with 3 when one refuses."""
    from lvm.checkpoint import load_checkpoint
    from lvm.corpus.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.diagnostics.data import data_gates
    from lvm.diagnostics.model import model_gates
    from lvm.report import gate_rows
    from lvm.validation import validate as evaluate

    data, place = open_dataset(dataset), resolve_device(device)
    gates = data_gates(data, device=place)
    sound = all(gate.passed for gate in gates)
    if figures is not None:
        from lvm.diagnostics.figures import data_figures

        data_figures(data, figures, place)
    if model is not None and sound:
        # Any difference of its golden predictions that is a number: the gate judges it in the table.
        checkpoint = load_checkpoint(model, place, tolerance=sys.float_info.max)
        found = evaluate(data, checkpoint, "val")
        gates += model_gates(checkpoint, found)
        if figures is not None:
            from lvm.diagnostics.figures import share_figure
            from lvm.figures import evaluation_figures, save

            arch = checkpoint.config.arch
            evaluation_figures({arch: found}, figures)
            save(share_figure(checkpoint.config.gradient_shares, arch), figures / "shares.png")
    if sound:
        gates += cli_text.decoder_gates(data, decoder, place)
    passed = all(gate.passed for gate in gates)
    value = {"passed": passed, "gates": [gate.as_json() for gate in gates]}
    advice = "Refused: see the reasons and remedies above"
    if passed and model is None:
        advice = next_command("train", dataset, "--arch", "lstm", "--out", "runs/lstm")
    elif passed:
        advice = next_command("validate", dataset, "--model", model)
    output(value, as_json, gate_rows(gates).rich(), advice)
    if not passed:
        raise typer.Exit(3)


@app.command()
def train(
    dataset: DatasetArgument,
    arch: Annotated[str, typer.Option(help="lstm, gru, mamba2, transformer or amn.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the model.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training chunks, at most.")] = None,
    device: DevicesOption = "auto",
    setting: Annotated[list[str] | None, typer.Option("--set", help="Any field of TrainConfig, as model.width=512; repeatable.")] = None,
    recipe: Annotated[str, typer.Option(help="residual, or legacy: the broken original, to be compared with.")] = "residual",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint; a finished run is kept.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Clear an earlier run first.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one predictor, on one device or on several together."""
    from lvm.corpus.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.events import Event
    from lvm.models.mamba2 import scan_name
    from lvm.ranks import join, own_device
    from lvm.report import Rows
    from lvm.training import TrainingDiverged
    from lvm.training import train as run

    if until_stdin_closes:
        exit_with_stdin()
    one_process_a_device(device)
    data = open_dataset(dataset)
    chosen = [*(setting or []), *([f"epochs={epochs}"] if epochs else [])]
    config = train_config(arch, data.dim, chosen, recipe)
    place = resolve_device(own_device(device))
    ranks = join(place)
    if ranks.rank == 0:
        together = f" and {ranks.world - 1} more" if ranks.world > 1 else ""
        people.print(f"{arch} on {place}{together}, dataset {data.manifest.digest[:12]}, {data.manifest.chunks['train']} training chunks")
        people.print_json(data=config.model_dump())
        if arch == "mamba2":
            people.print(f"Mamba2's scan: {scan_name(place)}", style="bold")
    with progress_bar("steps", shown=ranks.rank == 0) as bar:
        task = bar.add_task(arch, total=None, visible=False)

        def show(event: Event) -> None:
            bar.update(task, completed=event["step"], total=event["total_steps"], visible=True)
            if "val/cosine" in event["metrics"]:
                bar.console.print(validation_line(event))
            if "train/micro_batch" in event["metrics"]:
                bar.console.print(memory_line(event, config.sampler.stretches), style="bold")

        try:
            done = run(config, data, out, place, resume, fresh, show, ranks)
        except TrainingDiverged as error:
            print(f"lvm: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
    ranks.leave()
    if ranks.rank:
        return
    best = done.best
    names = ("val/cosine", "val/skill_cosine", "val/recall_at_5", "val/skill_recall_at_5", "val/shuffle_drop")
    rows = [[name, f"{best[name]:+.4f}"] for name in names]
    title = f"{config.model.name}: {done.parameters:,} parameters, {len(done.history)} epochs, kept epoch {int(best['epoch'])}"
    value = {"path": str(out), "arch": done.arch, "parameters": done.parameters, "best": best}
    output(value, as_json, Rows(title, ["validation", "value"], rows).rich(), next_command("validate", dataset, "--model", out))


@app.command()
def validate(
    dataset: DatasetArgument,
    model: Annotated[Path, typer.Option(help="Folder of a trained model.")],
    split: Annotated[str, typer.Option(help="val, test, or all (for a dataset that the model was not trained on).")] = "test",
    context_length: Annotated[int | None, typer.Option(min=1, help="Chunks of context; the model's own by default.")] = None,
    device: DeviceOption = "auto",
    figures: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for figures.")] = None,
    decoder: DecoderOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a model beside every baseline, and put 100 of its predictions into words."""
    from lvm.checkpoint import load_checkpoint
    from lvm.corpus.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.report import model_rows, retrieval_rows
    from lvm.validation import validate as evaluate

    data = open_dataset(dataset)
    checkpoint = load_checkpoint(model, resolve_device(device))
    found = evaluate(data, checkpoint, split, context_length)
    if figures is not None:
        from lvm.figures import evaluation_figures

        evaluation_figures({checkpoint.config.arch: found}, figures)
    summary = found.summary()
    summary["decode"], texts = cli_text.decoded_windows(data, checkpoint, split, context_length, decoder)
    name = checkpoint.config.train.model.name
    tables = [model_rows(summary, name).rich(), retrieval_rows(summary, name).rich(), *texts]
    output(summary, as_json, *tables, next_command("diagnose", dataset, "--model", model))


app.command()(explain)
app.command()(cli_text.decode)
app.command()(cli_text.generate)
app.command()(train_decoder)
app.command()(serve)


def validation_line(event: dict[str, Any]) -> str:
    """One line an epoch: what was reached, against what, how fast, how long still."""
    m, t = event["metrics"], event["timing"]
    return (
        f"epoch {event['epoch']}: cosine {m['val/cosine']:.4f} (skill {m['val/skill_cosine']:+.4f}), "
        f"R@5 {m['val/recall_at_5']:.4f} (skill {m['val/skill_recall_at_5']:+.4f}), "
        f"{t['system/chunks_per_second']:,.0f} chunks/s, {t['system/eta_seconds']:.0f} s left"
    )


def memory_line(event: dict[str, Any], stretches: int) -> str:
    """What is done about memory that ran out."""
    size = int(event["metrics"]["train/micro_batch"])
    return f"Out of memory at step {event['step']}: from here on {size} stretches at a time, gradients still of all {stretches} of a batch"
