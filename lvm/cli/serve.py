"""`lvm serve`: the champion over HTTP."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvm.cli.common import DecoderOption, DeviceOption, people
from lvm.errors import InputError, require_extra

if TYPE_CHECKING:
    from lvm.serving.metrics import Measures
    from lvm.serving.model_store import Models
    from lvm.serving.text import TextOut


def serve(
    model: Annotated[list[Path], typer.Option(help="Folder of a model, as models/champion; others may be served beside the first.")],
    data: Annotated[Path | None, typer.Option(help="Dataset of real chunks to show, or a folder that holds the model's own.")] = None,
    decoder: DecoderOption = "auto",
    host: Annotated[str, typer.Option(help="Where to listen. Beyond loopback the key LVM_API_KEY is required.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8766,
    device: DeviceOption = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a computation; small models are quickest on one.")] = 1,
    at_once: Annotated[
        int, typer.Option(min=1, help="Requests for predictions inside at once, in a burst; more are refused with 429.")
    ] = 32,
    watch: Annotated[bool, typer.Option(help="Take over a newer champion when there is one; SIGHUP does so in any case.")] = True,
) -> None:
    """Serve predictions, their text and their neighbours over HTTP."""
    # Until all is loaded: a tenth to a fifth of the imports' time would go into looking at objects that stay.
    gc.disable()
    require_extra("serve", "'lvm serve'")
    from lvm.serving.run import bound, required_key, run
    from lvm.serving.server import Limits, Server

    key = required_key(host)
    limits = Limits(vectors=at_once, watch=Limits.watch if watch else None)

    def load_models(measures: "Measures") -> "Models":
        import torch

        from lvm.devices import resolve_device
        from lvm.serving.model_store import Models

        torch.set_num_threads(threads)
        return Models(model, resolve_device(device), measures)

    def load_text(models: "Models") -> "TextOut":
        from lvm.decoding.load import choose_decoder
        from lvm.devices import resolve_device
        from lvm.serving.text import find_library
        from lvm.serving.text import load_text as load

        first = models.get(None)
        library = find_library(data, first.checkpoint.config.dataset_digest) if data else None
        return load(first.recipe, choose_decoder(decoder, first.recipe), library, str(resolve_device(device)))

    for path in model:
        if not (path / "config.json").is_file():
            raise InputError(f"option --model {path}: holds no config.json, so it is no model: 'make demo' makes a champion")
    listening = bound(host, port)
    address = f"http://{host}:{listening.getsockname()[1]}"
    people.print(f"Loading {', '.join(str(path) for path in model)}")
    run(Server(load_models, load_text, limits, key), listening, lambda: people.print(f"Ready at {address}; its interface: {address}/docs"))
