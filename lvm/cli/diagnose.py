"""`lvm diagnose`: the gates on data, model and decoder."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvm.cli.common import ConfigOption, DatasetArgument, DecoderOption, DeviceOption, JsonOption, PresetOption, SetOption, output, people
from lvm.config import GateThresholds, read_settings
from lvm.reports.next_command import next_command

if TYPE_CHECKING:
    import torch

    from lvm.data.dataset import Dataset
    from lvm.gates.result import GateResult


def diagnose(
    dataset: DatasetArgument,
    model: Annotated[Path | None, typer.Option(help="Folder of a trained model.")] = None,
    decoder: DecoderOption = "none",
    figures: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for figures.")] = None,
    device: DeviceOption = "auto",
    preset: PresetOption = None,
    config_file: ConfigOption = None,
    setting: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the gates on the data, and on a model or a decoder if given; exit with 3 when one fails."""
    from lvm.data.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.gates.data import data_gates
    from lvm.gates.result import verdict
    from lvm.reports.tables.gates import gate_table

    limits = read_settings(preset, config_file, setting or [], reads=("gates",)).gates
    data, place = open_dataset(dataset), resolve_device(device)
    gates = data_gates(data, limits, place)
    sound = all(gate.passed for gate in gates)
    if figures is not None:
        from lvm.reports.figures.data import data_figures

        data_figures(data, figures, place)
    if model is not None and sound:
        gates += _model_gates(data, model, limits, figures, place)
    if sound:
        gates += decoder_gates(data, decoder, limits, place)
    passed = all(gate.passed for gate in gates)
    value = {"passed": passed, "verdict": verdict(gates), "gates": [gate.as_json() for gate in gates]}
    advice = "Refused: see the reasons and remedies above"
    if passed and model is None:
        advice = next_command("train", dataset, "--arch", "lstm", "--out", "runs/lstm")
    elif passed:
        advice = next_command("validate", dataset, "--model", model)
    output(value, as_json, gate_table(gates).rich(), f"Gates: {verdict(gates)}", advice)
    if not passed:
        raise typer.Exit(3)


def _model_gates(data: "Dataset", model: Path, limits: GateThresholds, figures: Path | None, device: "torch.device") -> "list[GateResult]":
    """The gates on a model, on validation documents; draws its figures if a folder is given."""
    from lvm.evaluation.evaluate import evaluate_checkpoint
    from lvm.gates.model import model_gates
    from lvm.models.checkpoint import load_checkpoint

    # Loaded whatever its golden predictions are: reload_parity says in the table how far they are off.
    checkpoint = load_checkpoint(model, device, tolerance=sys.float_info.max)
    found = evaluate_checkpoint(data, checkpoint, "val")
    if figures is not None:
        from lvm.reports.figures.evaluation import evaluation_figures
        from lvm.reports.figures.style import save
        from lvm.reports.figures.training import share_figure

        arch = checkpoint.config.arch
        evaluation_figures({arch: found}, figures)
        save(share_figure(checkpoint.config.gradient_shares, arch, limits), figures / "shares.png")
    return model_gates(checkpoint, found, limits)


def decoder_gates(data: "Dataset", decoder: str, limits: GateThresholds, device: "torch.device") -> "list[GateResult]":
    """The gate on the decoder; none, with the reason on standard error, if no decoder fits the dataset."""
    from lvm.decoding.load import NONE, NoDecoder, open_decoder

    loaded = open_decoder(decoder, data, str(device), limits=limits)
    if isinstance(loaded, NoDecoder):
        if decoder != NONE:
            people.print(loaded.reason, markup=False)
        return []
    return [loaded.contract]
