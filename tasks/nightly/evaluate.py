"""Stage `judge-night`: the champion's numbers on the night's documents, its gates, its predictions in words."""

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
    """The night's predictions in words, and whether the decoder belongs to the vectors."""

    model_config = ConfigDict(frozen=True)

    text: DecodedModel
    gates: list[dict[str, Any]]


@task
def evaluate_champion(
    champion: Champion, documents: NightDocuments, limits: GateThresholds, run_id: str, figures: Path, device: str
) -> dict[str, Any]:
    """A `NightEvaluation.summary()`; its figures go to the run. A gate that fails stops nothing here: the whole night is reported."""
    place = resolve_device(device)
    checkpoint, record = load_checkpoint(champion.path, place, limits.parity), open_dataset(champion.dataset)
    fresh = open_dataset(documents.dataset) if documents.dataset else None
    judged = evaluate_night(checkpoint, record, fresh, champion.recorded, load_encoder(record.manifest.recipe.name, str(place)), limits)
    made = [*evaluation_figures({champion.arch: judged.night}, figures), save(night_figure(judged), figures / "documents.png")]
    for file in made:
        MlflowClient().log_artifact(run_id, str(file), "figures")
    return judged.summary()


@task
def decode_night(
    champion: Champion, documents: NightDocuments, decoder: str, limits: GateThresholds, run_id: str, figures: Path, device: str
) -> NightText:
    """Put 100 of the champion's predictions into words, as after a training.

    Nothing is decoded with a decoder of another encoder: that is a breach. One that reads badly is reported, not a breach.
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
