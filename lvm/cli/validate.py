"""`lvm validate`: every metric of a model beside every baseline, its gates, and some of its predictions as text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvm.cli.common import ConfigOption, DatasetArgument, DecoderOption, DeviceOption, JsonOption, PresetOption, SetOption, output
from lvm.config import EXCLUDED_BEFORE, GateThresholds, read_settings
from lvm.reports.next_command import next_command

if TYPE_CHECKING:
    from lvm.data.dataset import Dataset
    from lvm.evaluation.evaluate import Evaluation
    from lvm.models.checkpoint import Checkpoint

SHOWN = 3
"""Windows whose texts are shown in a terminal; `--json` gives all."""


def validate(
    dataset: DatasetArgument,
    model: Annotated[Path, typer.Option(help="Folder of a trained model.")],
    split: Annotated[str, typer.Option(help="val, test, or all (for a dataset that the model was not trained on).")] = "test",
    context_length: Annotated[
        int | None, typer.Option(min=1, max=EXCLUDED_BEFORE, help="Chunks of context; the model's own by default.")
    ] = None,
    device: DeviceOption = "auto",
    figures: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for figures.")] = None,
    decoder: DecoderOption = "auto",
    preset: PresetOption = None,
    config_file: ConfigOption = None,
    setting: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model beside every baseline, and put 100 of its predictions into words."""
    from lvm.data.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.evaluation.evaluate import evaluate_checkpoint
    from lvm.gates.model import model_gates
    from lvm.gates.result import verdict
    from lvm.models.checkpoint import load_checkpoint
    from lvm.reports.tables.evaluation import model_table
    from lvm.reports.tables.gates import gate_table

    limits = read_settings(preset, config_file, setting or [], reads=("gates",)).gates
    data = open_dataset(dataset)
    checkpoint = load_checkpoint(model, resolve_device(device), limits.parity)
    found = evaluate_checkpoint(data, checkpoint, split, context_length)
    if figures is not None:
        from lvm.reports.figures.evaluation import evaluation_figures

        evaluation_figures({checkpoint.config.arch: found}, figures)
    gates = model_gates(checkpoint, found, limits)
    summary = found.summary() | {"verdict": verdict(gates), "gates": [gate.as_json() for gate in gates]}
    summary["decode"], texts = decoded_windows(data, checkpoint, split, context_length, decoder, limits)
    summary["looks"], told = counted_looks(data, checkpoint, found)
    name = checkpoint.config.train.model.name
    tables = [model_table(summary, name), gate_table(gates, f"Gates of the model on {split} documents")]
    lines = [f"Gates of the model: {verdict(gates)}", *told, next_command("diagnose", dataset, "--model", model)]
    output(summary, as_json, *(table.rich() for table in tables), *texts, *lines)


def counted_looks(data: "Dataset", checkpoint: "Checkpoint", found: "Evaluation") -> tuple[dict[str, Any] | None, list[str]]:
    """The 'looks' object of `lvm validate`, and its sentences for people; None and none where the documents are not for testing."""
    from lvm.evaluation.looks import looks_file, of_model, read_looks

    if found.split != "test":
        return None, []
    looks, file = read_looks(data), looks_file(data)
    counted = looks.counts(of_model(checkpoint.config, found.windows.context_length))
    missing = [] if counted else [f"This look is not counted, since {file} cannot be written"]
    return {"configurations": len(looks.configurations), "counted": counted, "file": str(file)}, [looks.sentence, *missing]


def decoded_windows(
    data: "Dataset", checkpoint: "Checkpoint", split: str, context_length: int | None, decoder: str, limits: GateThresholds
) -> tuple[dict[str, Any], list[Any]]:
    """The 'decode' object of `lvm validate`, and its tables for people."""
    from lvm.decoding.evaluate import CORRECTIONS, decode_windows
    from lvm.decoding.load import NoDecoder, open_decoder
    from lvm.reports.tables.gates import gate_table
    from lvm.reports.tables.text import arm_table, length_table, sample_table

    loaded = open_decoder(decoder, data, str(checkpoint.model.mean.device), CORRECTIONS, limits)
    if isinstance(loaded, NoDecoder):
        return {"available": False, "reason": loaded.reason}, [loaded.reason]
    found = decode_windows(data, checkpoint, loaded, split, context_length, limits)
    summary = found.summary()
    gates = gate_table([found.contract, found.abc], f"Gates on the decoder {loaded.name}")
    tables = [gates, arm_table(summary), length_table(summary), sample_table(summary, SHOWN)]
    return {"decoder": loaded.name, **summary}, [table.rich() for table in tables]
