"""Stage `evaluate-decoder`: a trained decoder on texts that it has not seen, and the page about it."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from lvm.config import GateThresholds
from lvm.data.dataset import open_dataset
from lvm.decoding.evaluate import CORRECTED, FIRST, decode_texts
from lvm.decoding.gates import decoder_ceiling, encoder_contract
from lvm.decoding.load import load_decoder
from lvm.devices import resolve_device
from lvm.gates.result import GateResult, require
from lvm.reports.next_command import next_command
from lvm.reports.tables.gates import gate_table
from lvm.reports.tables.table import Table
from lvm.reports.tables.text import ceiling_sample_table, ceiling_table
from tasks.gate_log import gate_tag, log_gates
from tasks.tracking.runs import log_metrics, set_tags
from tasks.train_decoder import TrainedDecoder
from tasks.trainer_process import last_step

SAMPLES, SHOWN = 10, 3
"""Number of texts on the page and in the terminal. MLflow's table has all of them."""


class EvaluatedDecoder(BaseModel):
    """The evaluation of one decoder."""

    model_config = ConfigDict(frozen=True)

    trained: TrainedDecoder
    available: bool
    """Whether it decodes real vectors well enough to rely on its texts."""

    gates: list[dict[str, Any]]
    summary: dict[str, Any]
    """A `DecodedTexts.summary()`."""


@task
def evaluate_decoder(
    trained: TrainedDecoder, dataset: Path, hold_out: list[Path], limits: GateThresholds, parent: str, device: str
) -> EvaluatedDecoder:
    """Check a decoder against the stored vectors, and evaluate it on validation texts of the first of `hold_out`, else of `dataset`.

    Metrics, gates, texts and card go to the decoder's run, which ends here; the page goes to the flow's run `parent`.
    Raises `GateRefused` when the stored vectors are not those of its encoder. Bad texts are reported, not refused.
    """
    data, place = open_dataset(dataset), str(resolve_device(device))
    decoder = load_decoder(trained.path, place)
    contract = encoder_contract(data, decoder, limits)
    log_gates(trained.run_id, [contract], "decoder")
    require([contract])
    unseen = open_dataset(hold_out[0]) if hold_out else data
    found = decode_texts(unseen, load_decoder(trained.path, place, 0, decoder.encoder), decoder)
    gates = [contract, decoder_ceiling(found.roundtrip, len(found.windows), limits)]
    results = [gate.as_json() for gate in gates]
    evaluated = EvaluatedDecoder(trained=trained, available=gates[1].passed, gates=results, summary=found.summary())
    _report(evaluated, gates, decoder.recipe.name, parent)
    return evaluated


def ceiling_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """The summary as MLflow metrics: `decode/A_bleu` with corrections, as in retrain-all, and `decode/A_first_bleu` without."""
    prefixes = {CORRECTED: "decode/A_", FIRST: "decode/A_first_"}
    return {
        prefixes[search] + name: float(value)
        for search, scores in summary["scores"].items()
        for name, value in scores.items()
        if name not in ("by_length", "n")
    }


def _report(evaluated: EvaluatedDecoder, gates: list[GateResult], encoder: str, parent: str) -> None:
    """Log metrics, texts, gates and card to the decoder's run; write the page to the flow's run, Prefect and the terminal (shortened)."""
    path, run_id, summary, client = evaluated.trained.path, evaluated.trained.run_id, evaluated.summary, MlflowClient()
    metrics = ceiling_metrics(summary)
    log_metrics(run_id, metrics, step=last_step(path))
    log_metrics(parent, metrics)
    log_gates(run_id, gates, "decoder")
    set_tags(run_id, {"lvm.gate": gate_tag(gates), "lvm.decoder": str(path)})
    client.log_artifact(run_id, str(path / "card.md"))
    client.log_dict(run_id, summary, "decode/summary.json")
    columns = list(summary["samples"][0])
    client.log_table(run_id, {column: [sample[column] for sample in summary["samples"]] for column in columns}, "decode/samples.json")

    name = f"Decoder of {encoder}"
    scores = ceiling_table(summary, name)
    conclusion = f"{name}: {path} ({gates[1].sentence})."
    if not evaluated.available:
        conclusion = f"DECODING UNAVAILABLE. {conclusion}"
    tables: list[Table] = [gate_table(gates, f"Gates on the decoder {path.name}"), scores, ceiling_sample_table(summary, SAMPLES)]
    page = "\n\n".join(["# train-decoder", conclusion, *(table.markdown() for table in tables)])
    client.log_text(run_id, page, "decode/text.md")
    client.log_text(parent, page, "report.md")
    client.set_terminated(run_id, "FINISHED")
    create_markdown_artifact(page, key="decoder", description=f"{name}: gates and what comes back of real texts")
    console = Console()
    console.print(scores.rich(), ceiling_sample_table(summary, SHOWN).rich())
    console.print(conclusion, next_command("decode", "--decoder", path, "--text-file", "FILE"), sep="\n", markup=False, soft_wrap=True)
