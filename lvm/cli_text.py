"""Subcommands that give text: `lvm decode`, `lvm generate`, and the texts of `lvm validate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvm.cli_common import DecoderOption, DeviceOption, JsonOption, output, people
from lvm.errors import InputError

if TYPE_CHECKING:
    import torch

    from lvm.checkpoint import Checkpoint
    from lvm.corpus.dataset import Dataset
    from lvm.diagnostics.gate import GateResult

SHOWN = 3
"""Windows whose texts are shown in a terminal; `--json` gives all."""

TextFileOption = Annotated[Path | None, typer.Option(help="UTF-8 file with a text on every line.")]


def decode(
    text_file: TextFileOption = None,
    vectors: Annotated[Path | None, typer.Option(help=".npy file of float32 vectors, [n, dim].")] = None,
    decoder: Annotated[str, typer.Option(help="minilm, a folder of 'lvm train-decoder', or vec2text:<name or folder>.")] = "minilm",
    steps: Annotated[int | None, typer.Option(min=0, help="Corrections at most; the decoder's own default otherwise.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Put vectors into words; texts are embedded first and shown beside what comes back."""
    from lvm.decode import load_decoder
    from lvm.decode.inputs import encode_texts, read_texts, read_vectors
    from lvm.devices import resolve_device
    from lvm.report import decoded_rows

    if (text_file is None) == (vectors is None):
        raise InputError("give either --text-file or --vectors")
    if text_file is not None:
        read_texts(text_file)  # refuses what cannot be read before a decoder is loaded
    loaded = load_decoder(decoder, str(resolve_device(device)), steps)
    texts: list[str] | None = None
    if text_file is not None:
        texts, given = encode_texts(text_file, loaded.encoder)
    elif vectors is not None:
        given = read_vectors(vectors, loaded.recipe)
    results: list[dict[str, Any]] = [vars(found) for found in loaded.decode(given)]
    if texts is not None:
        results = [{"input": text, **found} for text, found in zip(texts, results, strict=True)]
    output({"decoder": decoder, "results": results}, as_json, decoded_rows(results, decoder).rich())


def generate(
    text_file: Annotated[Path, typer.Option(help="UTF-8 file: the context, a sentence on every line.")],
    model: Annotated[Path, typer.Option(help="Folder of a trained model.")],
    steps: Annotated[int, typer.Option(min=1, help="Chunks to predict, one after the other.")] = 5,
    dataset: Annotated[Path | None, typer.Option(help="Dataset in which the nearest real chunks are looked up.")] = None,
    decoder: DecoderOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Predict the chunks after a context: the nearest real chunk with its source, and the prediction in words."""
    from lvm.checkpoint import load_checkpoint
    from lvm.corpus.dataset import open_dataset
    from lvm.decode import load_decoder
    from lvm.decode.choice import choose_decoder
    from lvm.decode.inputs import encode_texts, read_texts
    from lvm.decode.nearest import ChunkLibrary
    from lvm.decode.rollout import generate as run
    from lvm.devices import resolve_device
    from lvm.report import generated_rows

    read_texts(text_file)  # refuses what cannot be read before anything is loaded
    place = resolve_device(device)
    checkpoint = load_checkpoint(model, place)
    checkpoint.config.require_forward(model)
    recipe = checkpoint.config.recipe
    library = None
    if dataset is not None:
        data = open_dataset(dataset)
        recipe.require_same(data.manifest.recipe, f"dataset {dataset}")
        data.require_finite()
        library = ChunkLibrary(data, "all", place)
    name = choose_decoder(decoder, recipe)
    if name is None:
        raise InputError(f"no decoder for the model's encoder {recipe.name}: train one with 'lvm train-decoder' and give it with --decoder")
    loaded = load_decoder(name, str(place))
    recipe.require_same(loaded.recipe, f"decoder {name}")
    context, vectors = encode_texts(text_file, loaded.encoder)
    found = [step.as_json() for step in run(checkpoint, loaded, context, vectors, steps, library)]
    advice = [] if library else ["Give --dataset for the nearest real chunk at every step"]
    output({"decoder": name, "context": context, "steps": found}, as_json, generated_rows(found, len(context)).rich(), *advice)


def decoder_gates(data: "Dataset", decoder: str, device: "torch.device") -> "list[GateResult]":
    """The gate on a decoder that `lvm diagnose` was given; says why where there is none to judge."""
    from lvm.decode import load_decoder
    from lvm.decode.choice import NONE, choose_decoder, without_decoder
    from lvm.diagnostics.decoder import encoder_contract

    name = choose_decoder(decoder, data.manifest.recipe)
    if name is None:
        if decoder != NONE:
            people.print(without_decoder(decoder, data.manifest.recipe, str(data.path)), markup=False)
        return []
    return [encoder_contract(data, load_decoder(name, str(device)))]


def decoded_windows(
    data: "Dataset", checkpoint: "Checkpoint", split: str, context_length: int | None, decoder: str
) -> tuple[dict[str, Any], list[Any]]:
    """The 'decode' object of `lvm validate`, and its tables for people."""
    from lvm.decode import load_decoder
    from lvm.decode.choice import choose_decoder, without_decoder
    from lvm.decode.pipeline import CORRECTIONS, decode_windows
    from lvm.report import arm_rows, gate_rows, length_rows, sample_rows

    recipe = data.manifest.recipe
    name = choose_decoder(decoder, recipe)
    if name is None:
        reason = without_decoder(decoder, recipe, str(data.path))
        return {"available": False, "reason": reason}, [reason]
    loaded = load_decoder(name, str(checkpoint.model.mean.device), CORRECTIONS)
    found = decode_windows(data, checkpoint, loaded, split, context_length)
    summary = found.summary()
    gates = gate_rows([found.contract, found.abc], f"Gates on the decoder {name}")
    tables = [gates, arm_rows(summary), length_rows(summary), sample_rows(summary, SHOWN)]
    return {"decoder": name, **summary}, [table.rich() for table in tables]
