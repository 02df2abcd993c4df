"""`lvm serve`: the champion over HTTP."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvm.cli.common import ConfigOption, DecoderOption, DeviceOption, SetOption, people
from lvm.errors import InputError, require_extra

if TYPE_CHECKING:
    from lvm.serving.metrics import ServingMetrics
    from lvm.serving.model_store import ModelStore
    from lvm.serving.text import TextPipeline


def serve(
    model: Annotated[list[Path], typer.Option(help="Folder of a model, such as models/champion. Repeat to serve others beside the first.")],
    data: Annotated[
        Path | None, typer.Option(help="Dataset whose chunks are shown as neighbours, or a folder that contains the model's own dataset.")
    ] = None,
    decoder: DecoderOption = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on. Beyond loopback, the key LVM_API_KEY is required.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8766,
    device: DeviceOption = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for a computation; small models are fastest on one.")] = 1,
    config_file: ConfigOption = None,
    setting: SetOption = None,
) -> None:
    """Serve predictions, their text and their nearest real chunks over HTTP.

    Limits are settings: --set serving.burst=64, see 'lvm settings'.
    """
    require_extra("serve", "'lvm serve'")
    from lvm.config import read_settings
    from lvm.serving.process import api_key, listening_socket, run
    from lvm.serving.server import ModelServer

    config = read_settings(None, config_file, setting or [], reads=("serving",)).serving
    key = api_key(host)
    for path in model:
        if not (path / "config.json").is_file():
            raise InputError(f"option --model {path}: has no config.json, so it is not a model: 'make demo' makes a champion")
    bound = listening_socket(host, port)
    address = f"http://{host}:{bound.getsockname()[1]}"
    people.print(f"Loading {', '.join(str(path) for path in model)}")
    server = ModelServer(partial(_load_models, model, device, threads), partial(_load_text, data, decoder, device), config, key)
    run(server, bound, lambda: people.print(f"Ready at {address}; API documentation: {address}/docs"))


def _load_models(paths: list[Path], device: str, threads: int, metrics: "ServingMetrics") -> "ModelStore":
    import torch

    from lvm.devices import resolve_device
    from lvm.serving.model_store import ModelStore

    torch.set_num_threads(threads)
    return ModelStore(paths, resolve_device(device), metrics)


def _load_text(data: Path | None, decoder: str, device: str, models: "ModelStore") -> "TextPipeline":
    from lvm.data.dataset import NO_TEXTS
    from lvm.decoding.load import choose_decoder
    from lvm.devices import resolve_device
    from lvm.serving.text import find_dataset, load_text_pipeline

    first = models.get(None)
    dataset = find_dataset(data, first.checkpoint.config.dataset_digest) if data else None
    if dataset is not None and not dataset.has_texts:
        people.print(f"No neighbours are shown: dataset {dataset.path} {NO_TEXTS}", markup=False)
        dataset = None
    return load_text_pipeline(first.recipe, choose_decoder(decoder, first.recipe), dataset, str(resolve_device(device)))
