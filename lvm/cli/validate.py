"""`lvm validate`: every metric of a model beside every baseline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvm.cli.common import DatasetArgument, DecoderOption, DeviceOption, JsonOption, output
from lvm.reports.next_command import next_command

if TYPE_CHECKING:
    from lvm.data.dataset import Dataset
    from lvm.models.checkpoint import Checkpoint


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
    from lvm.data.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.evaluation.evaluate import evaluate_checkpoint as evaluate
    from lvm.models.checkpoint import load_checkpoint
    from lvm.reports.tables.evaluation import model_table, retrieval_table

    data = open_dataset(dataset)
    checkpoint = load_checkpoint(model, resolve_device(device))
    found = evaluate(data, checkpoint, split, context_length)
    if figures is not None:
        from lvm.reports.figures.evaluation import evaluation_figures

        evaluation_figures({checkpoint.config.arch: found}, figures)
    summary = found.summary()
    summary["decode"], texts = decoded_windows(data, checkpoint, split, context_length, decoder)
    name = checkpoint.config.train.model.name
    tables = [model_table(summary, name).rich(), retrieval_table(summary, name).rich(), *texts]
    output(summary, as_json, *tables, next_command("diagnose", dataset, "--model", model))


SHOWN = 3
"""Windows whose texts are shown in a terminal; `--json` gives all."""


def decoded_windows(
    data: "Dataset", checkpoint: "Checkpoint", split: str, context_length: int | None, decoder: str
) -> tuple[dict[str, Any], list[Any]]:
    """The 'decode' object of `lvm validate`, and its tables for people."""
    from lvm.decoding.evaluate import CORRECTIONS, decode_windows
    from lvm.decoding.load import NoDecoder, open_decoder
    from lvm.reports.tables.gates import gate_table
    from lvm.reports.tables.text import arm_table, length_table, sample_table

    loaded = open_decoder(decoder, data, str(checkpoint.model.mean.device), CORRECTIONS)
    if isinstance(loaded, NoDecoder):
        return {"available": False, "reason": loaded.reason}, [loaded.reason]
    found = decode_windows(data, checkpoint, loaded, split, context_length)
    summary = found.summary()
    gates = gate_table([found.contract, found.abc], f"Gates on the decoder {loaded.name}")
    tables = [gates, arm_table(summary), length_table(summary), sample_table(summary, SHOWN)]
    return {"decoder": loaded.name, **summary}, [table.rich() for table in tables]
