"""Stage `decode`: the choice of a decoder that fits the data, and the challenger's predictions as text."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from lvm.config import GateThresholds
from lvm.data.dataset import open_dataset
from lvm.decoding.evaluate import CORRECTIONS, DecodedWindows, decode_windows
from lvm.decoding.load import NoDecoder, open_decoder
from lvm.devices import resolve_device
from lvm.gates.result import require
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.figures.style import save
from lvm.reports.figures.text import decode_figure
from lvm.reports.tables.gates import gate_table
from lvm.reports.tables.text import arm_table, length_table, sample_table
from tasks.gate_log import log_gates
from tasks.promote import Promotion
from tasks.tracking.runs import log_metrics, set_tags
from tasks.trainer_process import last_step
from tasks.validate import ValidatedModel, interval_metrics

SAMPLES = 10
"""Number of windows whose texts the artifact shows. MLflow's table has all of them."""


class DecoderChoice(BaseModel):
    """The decoder of a flow."""

    model_config = ConfigDict(frozen=True)

    name: str | None
    """Name for `open_decoder`; None when nothing is decoded."""

    reason: str
    """Why this one; or why none, and what to do."""


class DecodedModel(BaseModel):
    """The decoded predictions of a flow."""

    model_config = ConfigDict(frozen=True)

    arch: str | None
    """Architecture of the decoded model; None when nothing was decoded."""

    reason: str
    """The result of the decoder's gate, or why there is no text."""

    summary: dict[str, Any]
    """A `DecodedWindows.summary()`; empty when nothing was decoded."""


@task
def diagnose_decoder(dataset: Path, asked: str, limits: GateThresholds, run_id: str, device: str) -> DecoderChoice:
    """Choose the decoder and check it against the stored vectors, before anything is trained.

    Raises `InputError` when there is no such decoder or it has another encoder recipe, and `GateRefused` when its
    encoder does not reproduce the stored vectors.
    """
    data = open_dataset(dataset)
    loaded = open_decoder(asked, data, str(resolve_device(device)), limits=limits)
    if isinstance(loaded, NoDecoder):
        get_run_logger().warning(loaded.reason)
        return DecoderChoice(name=None, reason=loaded.reason)
    log_gates(run_id, [loaded.contract], "decoder")
    require([loaded.contract])
    return DecoderChoice(name=loaded.name, reason=loaded.contract.reason)


@task
def decode_challenger(
    models: list[ValidatedModel],
    promotion: Promotion,
    choice: DecoderChoice,
    dataset: Path,
    limits: GateThresholds,
    figures: Path,
    device: str,
) -> DecodedModel:
    """Decode 100 test predictions of the best new model. Only that one, because decoding takes long.

    The result bars no model: the gate `decoder_abc` checks the decoder.
    """
    if choice.name is None:
        return DecodedModel(arch=None, reason=choice.reason, summary={})
    if promotion.challenger is None:
        return DecodedModel(arch=None, reason="Nothing is decoded: no model passed its gates", summary={})
    (model,) = (m for m in models if m.trained.arch == promotion.challenger)
    place = resolve_device(device)
    checkpoint = load_checkpoint(model.trained.path, place, limits.parity)
    data = open_dataset(dataset)
    loaded = open_decoder(choice.name, data, str(place), CORRECTIONS, limits)
    if isinstance(loaded, NoDecoder):
        return DecodedModel(arch=None, reason=loaded.reason, summary={})
    found = decode_windows(data, checkpoint, loaded, limits=limits)
    run, step = model.trained.run_id, last_step(model.trained.path)
    return log_text(run, promotion.challenger, choice.name, found, figures / promotion.challenger, step)


def text_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """The summary as MLflow metrics: `decode/bleu` of the prediction (arm C), `decode/A_bleu` of another arm, `decode/about_...`."""
    out: dict[str, float] = {}
    for arm, scores in summary["arms"].items():
        prefix = "decode/" if arm == "C" else f"decode/{arm}_"
        out |= {prefix + name: value for name, value in scores.items() if name not in ("by_length", "same_as", "n")}
    for name, interval in summary["about"].items():
        out |= interval_metrics(f"decode/about_{name}", interval)
    return out


def log_text(
    run_id: str, arch: str, decoder: str, found: DecodedWindows, figures: Path, step: int = 0, key: str = "decode"
) -> DecodedModel:
    """Log metrics, gates, figure, all samples and a page to a run; the page goes to Prefect too, under `key`."""
    client, summary = MlflowClient(), found.summary()
    figure = save(decode_figure(summary), figures / "text.png")
    gates = [found.contract, found.abc]
    log_metrics(run_id, text_metrics(summary), step=step)
    log_gates(run_id, gates, "decoder")
    set_tags(run_id, {"lvm.decoder": decoder, "lvm.decoding": "available" if summary["available"] else "unavailable"})
    title = f"Gates on the decoder {decoder}"
    tables = [gate_table(gates, title), arm_table(summary), length_table(summary), sample_table(summary, SAMPLES)]
    page = "\n\n".join(table.markdown() for table in tables)
    client.log_text(run_id, page, "decode/text.md")
    client.log_dict(run_id, summary, "decode/summary.json")
    columns = ("doc_id", "chunk_index", "truth", "inverted", "ceiling", "copy_last")
    table: dict[str, list[Any]] = {column: [sample[column] for sample in summary["samples"]] for column in columns}
    table["nearest"] = [sample["nearest"]["text"] for sample in summary["samples"]]
    client.log_table(run_id, table, "decode/samples.json")
    client.log_artifact(run_id, str(figure), "figures")
    create_markdown_artifact(page, key=key, description=f"Predictions of {arch} as text")
    return DecodedModel(arch=arch, reason=found.abc.sentence, summary=summary)
