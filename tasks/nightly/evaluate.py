"""Stage `evaluate-night`: the champion on the night's documents, its gates, and its predictions as text."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from prefect import task
from pydantic import BaseModel, ConfigDict

from lvm.config import GateThresholds
from lvm.data.dataset import open_dataset
from lvm.data.encoders import load_encoder
from lvm.decoding.evaluate import CORRECTIONS, decode_windows
from lvm.decoding.load import NoDecoder, no_decoder_reason, open_decoder
from lvm.devices import resolve_device
from lvm.gates.evaluate_night import evaluate_night
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.figures.evaluation import evaluation_figures
from lvm.reports.figures.style import save
from lvm.reports.nightly import night_figure
from tasks.decode import DecodedModel, log_text
from tasks.nightly.champion import Champion
from tasks.nightly.documents import NightDocuments


class NightText(BaseModel):
    """The night's decoded predictions, and the gate on the decoder."""

    model_config = ConfigDict(frozen=True)

    text: DecodedModel
    gates: list[dict[str, Any]]


@task
def evaluate_champion(
    champion: Champion, documents: NightDocuments, limits: GateThresholds, run_id: str, figures: Path, device: str
) -> dict[str, Any]:
    """Evaluate the champion and log figures; returns a `NightEvaluation.summary()`. Failed gates are reported later."""
    place = resolve_device(device)
    checkpoint, record = load_checkpoint(champion.path, place, limits.parity), open_dataset(champion.dataset)
    fresh = open_dataset(documents.dataset) if documents.dataset else None
    night = evaluate_night(checkpoint, record, fresh, champion.recorded, load_encoder(record.manifest.recipe.name, str(place)), limits)
    made = [*evaluation_figures({champion.arch: night.night}, figures), save(night_figure(night), figures / "documents.png")]
    for file in made:
        MlflowClient().log_artifact(run_id, str(file), "figures")
    return night.summary()


@task
def decode_night(
    champion: Champion, documents: NightDocuments, decoder: str, limits: GateThresholds, run_id: str, figures: Path, device: str
) -> NightText:
    """Decode 100 of the champion's predictions, as after a training.

    A decoder whose encoder does not reproduce the vectors is a breach, and nothing is decoded with it. Bad texts are
    reported and are no breach.
    """
    place = resolve_device(device)
    data = open_dataset(documents.dataset or champion.dataset)
    loaded = open_decoder(decoder, data, str(place), CORRECTIONS, limits)
    if isinstance(loaded, NoDecoder):  # to be trained on the dataset of record, not on one night's documents
        reason = no_decoder_reason(decoder, data.manifest.recipe, str(champion.dataset))
        return NightText(text=DecodedModel(arch=None, reason=reason, summary={}), gates=[])
    contract = loaded.contract
    if not contract.passed:
        return NightText(text=DecodedModel(arch=None, reason=contract.sentence, summary={}), gates=[contract.as_json()])
    checkpoint = load_checkpoint(champion.path, place, limits.parity)
    found = decode_windows(data, checkpoint, loaded, "all" if documents.dataset else "test", limits=limits)
    return NightText(text=log_text(run_id, champion.arch, loaded.name, found, figures, key="nightly-decode"), gates=[contract.as_json()])
