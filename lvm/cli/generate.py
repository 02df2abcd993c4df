"""`lvm generate`: predict the chunks after a context, as text."""

from pathlib import Path
from typing import Annotated

import typer

from lvm.cli.common import DecoderOption, DeviceOption, JsonOption, output
from lvm.errors import InputError


def generate(
    text_file: Annotated[Path, typer.Option(help="UTF-8 file with the context, one sentence a line.")],
    model: Annotated[Path, typer.Option(help="Folder of a trained model.")],
    steps: Annotated[int, typer.Option(min=1, help="Number of chunks to predict.")] = 5,
    dataset: Annotated[Path | None, typer.Option(help="Dataset in which to find the nearest real chunks.")] = None,
    decoder: DecoderOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Predict the chunks after a context: each as decoded text, and as the nearest real chunk with its source."""
    from lvm.data.dataset import open_dataset
    from lvm.decoding.generate import generate as run
    from lvm.decoding.inputs import encode_texts, read_texts
    from lvm.decoding.load import choose_decoder, load_decoder
    from lvm.decoding.neighbours import ChunkLibrary
    from lvm.devices import resolve_device
    from lvm.models.checkpoint import load_checkpoint
    from lvm.reports.tables.text import generated_table

    read_texts(text_file)  # an unreadable file is refused before anything is loaded
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
        raise InputError(f"no decoder for the model's encoder {recipe.name}: train one with 'lvm train-decoder' and pass it as --decoder")
    loaded = load_decoder(name, str(place))
    context, vectors = encode_texts(text_file, loaded.encoder)
    found = [step.as_json() for step in run(checkpoint, loaded, context, vectors, steps, library)]
    advice = [] if library else ["Give --dataset to see the nearest real chunk at every step"]
    output({"decoder": name, "context": context, "steps": found}, as_json, generated_table(found, len(context)).rich(), *advice)
