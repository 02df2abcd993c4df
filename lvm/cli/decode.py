"""`lvm decode`: turn vectors into text."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lvm.cli.common import DeviceOption, JsonOption, TextFileOption, output
from lvm.errors import InputError


def decode(
    text_file: TextFileOption = None,
    vectors: Annotated[Path | None, typer.Option(help=".npy file of float32 vectors, n rows of the encoder's dimension.")] = None,
    decoder: Annotated[str, typer.Option(help="minilm, a folder written by 'lvm train-decoder', or vec2text:<name or folder>.")] = "minilm",
    steps: Annotated[int | None, typer.Option(min=0, help="Maximum number of corrections; by default the decoder's own.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Decode vectors into text. Texts are embedded first and shown next to the decoded ones."""
    from lvm.decoding.inputs import encode_texts, read_texts, read_vectors
    from lvm.decoding.load import load_decoder
    from lvm.devices import resolve_device
    from lvm.reports.tables.text import decoded_table

    if (text_file is None) == (vectors is None):
        raise InputError("give either --text-file or --vectors")
    if text_file is not None:
        read_texts(text_file)  # an unreadable file is refused before a decoder is loaded
    loaded = load_decoder(decoder, str(resolve_device(device)), steps)
    texts: list[str] | None = None
    if text_file is not None:
        texts, given = encode_texts(text_file, loaded.encoder)
    elif vectors is not None:
        given = read_vectors(vectors, loaded.recipe)
    results: list[dict[str, Any]] = [vars(found) for found in loaded.decode(given)]
    if texts is not None:
        results = [{"input": text, **found} for text, found in zip(texts, results, strict=True)]
    output({"decoder": decoder, "results": results}, as_json, decoded_table(results, decoder).rich())
