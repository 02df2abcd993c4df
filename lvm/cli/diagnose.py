"""`lvm diagnose`: the gates on data, model and decoder."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvm.cli.common import DatasetArgument, DecoderOption, DeviceOption, JsonOption, output, people
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
    as_json: JsonOption = False,
) -> None:
    """Hold the data, and a model or a decoder if given, against the gates; exit with 3 when one refuses."""
    from lvm.data.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.evaluation.evaluate import evaluate_checkpoint as evaluate
    from lvm.gates.data import data_gates
    from lvm.gates.model import model_gates
    from lvm.models.checkpoint import load_checkpoint
    from lvm.reports.tables.gates import gate_table

    data, place = open_dataset(dataset), resolve_device(device)
    gates = data_gates(data, device=place)
    sound = all(gate.passed for gate in gates)
    if figures is not None:
        from lvm.reports.figures.data import data_figures

        data_figures(data, figures, place)
    if model is not None and sound:
        # Any difference of its golden predictions that is a number: the gate judges it in the table.
        checkpoint = load_checkpoint(model, place, tolerance=sys.float_info.max)
        found = evaluate(data, checkpoint, "val")
        gates += model_gates(checkpoint, found)
        if figures is not None:
            from lvm.reports.figures.evaluation import evaluation_figures
            from lvm.reports.figures.style import save
            from lvm.reports.figures.training import share_figure

            arch = checkpoint.config.arch
            evaluation_figures({arch: found}, figures)
            save(share_figure(checkpoint.config.gradient_shares, arch), figures / "shares.png")
    if sound:
        gates += decoder_gates(data, decoder, place)
    passed = all(gate.passed for gate in gates)
    value = {"passed": passed, "gates": [gate.as_json() for gate in gates]}
    advice = "Refused: see the reasons and remedies above"
    if passed and model is None:
        advice = next_command("train", dataset, "--arch", "lstm", "--out", "runs/lstm")
    elif passed:
        advice = next_command("validate", dataset, "--model", model)
    output(value, as_json, gate_table(gates).rich(), advice)
    if not passed:
        raise typer.Exit(3)


def decoder_gates(data: "Dataset", decoder: str, device: "torch.device") -> "list[GateResult]":
    """The gate on the decoder that `lvm diagnose` was given; prints the reason if there is no decoder to check."""
    from lvm.decoding.load import NONE, NoDecoder, open_decoder

    loaded = open_decoder(decoder, data, str(device))
    if isinstance(loaded, NoDecoder):
        if decoder != NONE:
            people.print(loaded.reason, markup=False)
        return []
    return [loaded.contract]
