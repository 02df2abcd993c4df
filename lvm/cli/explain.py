"""`lvm explain`: what a model uses of its context, and how much it knows about the next chunk."""

from pathlib import Path
from typing import Annotated

import typer

from lvm.cli.common import DatasetArgument, DeviceOption, JsonOption, output


def explain(
    dataset: DatasetArgument,
    model: Annotated[Path, typer.Option(help="Folder of a trained model.")],
    backward: Annotated[Path | None, typer.Option(help="Folder of the same model trained with --set reverse=true.")] = None,
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    figures: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for a figure.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show what a model uses of its context: ablations and information on up to 2,000 windows, skill on all."""
    from lvm.data.dataset import open_dataset
    from lvm.devices import resolve_device
    from lvm.evaluation.explain import explain as explain_model
    from lvm.evaluation.explain import require_mirror, skill
    from lvm.models.checkpoint import load_checkpoint
    from lvm.reports.tables.explain import ablation_table, contrast_table, direction_table, information_table

    data = open_dataset(dataset)
    checkpoint = load_checkpoint(model, resolve_device(device))
    mirrored = None
    if backward is not None:
        other = load_checkpoint(backward, resolve_device(device))
        require_mirror(checkpoint, other)
        mirrored = skill(data, other, split)
    found = explain_model(data, checkpoint, split) | {"backward": mirrored}
    if figures is not None:
        from lvm.reports.figures.explain import lag_figure
        from lvm.reports.figures.style import save

        save(lag_figure(found), figures / "lags.png")
    ablated = [ablation_table(found, metric) for metric in found["rivals"]]
    tables = [*ablated, contrast_table(found), information_table(found), direction_table(found, mirrored)]
    advice = [] if backward else ["For the skill in the other direction give --backward, the same model trained with --set reverse=true"]
    output(found, as_json, *(table.rich() for table in tables), *advice)
