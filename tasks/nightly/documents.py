"""Stage `night-documents`: the documents of a night that the champion has not seen, as a dataset."""

import logging
from pathlib import Path

from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict

from lvm.data.corpus import Corpus, read_corpus
from lvm.data.dataset import open_dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.extract import Extracted, dataset_key, extract_corpus, make_chunker
from lvm.data.manifest import Manifest
from lvm.data.names import first_names
from lvm.data.reuse import reusable_datasets
from lvm.data.sources import Reading
from lvm.data.unseen import OfferedDocuments, compare_with_record, rotating_sample
from lvm.devices import resolve_device
from lvm.errors import InputError
from lvm.evaluation.intervals import MIN_DOCUMENTS
from tasks.nightly.champion import Champion
from tasks.tracking.runs import log_dataset
from tasks.workspace import Workspace

BUILTIN = "builtin:sotu"

SLICE = 40
"""Addresses for a night without documents of its own. They take a minute or two to encode on two cores."""


class NightDocuments(BaseModel):
    """The documents that the champion is evaluated on."""

    model_config = ConfigDict(frozen=True)

    dataset: Path | None
    """None where the champion is evaluated on its own test documents again."""

    known: int
    """Documents that were offered and are in the champion's dataset: left out."""

    origin: str
    """Where the documents come from, as a sentence."""


@task
def gather_documents(
    workspace: Workspace,
    champion: Champion,
    source: list[str],
    max_docs: int | None,
    night: str,
    run_id: str,
    device: str,
    reading: Reading = Reading(),
) -> NightDocuments:
    """Extract the documents of `source` that the champion's dataset does not hold; of the built-in corpus where no source is given.

    Raises `InputError` when documents were given and none of them is new, and when the champion's dataset was imported.
    """
    record = open_dataset(champion.dataset)
    manifest = record.manifest
    if manifest.chunker is None:
        raise InputError(
            f"the champion's dataset {champion.dataset} was imported, so how its documents were cut is not known and new ones cannot be "
            "cut in the same way: validate the champion by 'lvm import' of new vectors and 'lvm validate --split all'"
        )
    encoder = load_encoder(manifest.recipe.name, str(resolve_device(device)))
    manifest.recipe.require_same(encoder.recipe, f"the champion's dataset {champion.dataset}")
    with read_corpus(source or [BUILTIN], make_chunker(manifest.chunker, encoder), workspace.datasets, None, reading) as corpus:
        offered = compare_with_record(corpus, record)
        if not offered.unseen and source:
            raise InputError(
                f"field 'source': all {len(offered.known)} documents of {', '.join(first_names(source))} are in the champion's dataset, "
                "so none is new: give documents that arrived since"
            )
        if not source and len(offered.unseen) < MIN_DOCUMENTS:
            return _own_test_documents(offered, manifest)
        chosen = rotating_sample(offered.unseen, max_docs or (len(offered.unseen) if source else SLICE), night)
        made = _extract(workspace, manifest, encoder, corpus.only(chosen))
    for line in made.remarks:
        get_run_logger().info("%s", line)
    log_dataset(run_id, made.manifest, "validation")
    origin = _origin(source, offered, chosen, len(made.manifest.skipped), manifest.sources)
    get_run_logger().log(logging.INFO if source else logging.WARNING, "%s", origin)
    return NightDocuments(dataset=made.path, known=len(offered.known), origin=origin)


def _own_test_documents(offered: OfferedDocuments, record: Manifest) -> NightDocuments:
    """What a night does without a source when the champion was trained on the whole built-in corpus."""
    origin = (
        "No source was given, and the champion's dataset holds the whole built-in corpus: the champion is evaluated on its own "
        f"{record.documents['test']} test documents again, which cannot show drift"
    )
    get_run_logger().warning(origin)
    return NightDocuments(dataset=None, known=len(offered.known), origin=origin)


def _extract(workspace: Workspace, record: Manifest, encoder: Encoder, corpus: Corpus) -> Extracted:
    """The corpus as a dataset below `data/`, divided and encoded as the champion's was; vectors that are there are reused."""
    out = workspace.datasets / dataset_key(corpus, record.splits, encoder)[:12]
    known = reusable_datasets(workspace.datasets, encoder, get_run_logger().warning)
    return extract_corpus(corpus, out, encoder, record.splits, reuse=known)


def _origin(source: list[str], offered: OfferedDocuments, chosen: list[str], skipped: int, trained_on: list[str]) -> str:
    """Where the documents were taken from, and what was left out."""
    what = ", ".join(first_names(source)) if source else "the built-in corpus of addresses, since no source was given"
    sample = "" if len(chosen) == len(offered.unseen) else f" (another {len(chosen)} each night)"
    origin = f"{len(chosen)} of {len(offered.unseen)} new documents of {what}{sample}"
    if offered.known:
        origin += f"; {len(offered.known)} that the champion's dataset holds were left out"
    if skipped:
        origin += f"; {skipped} were skipped as empty, copies or too short"
    if source:
        return origin
    return f"{origin}. The champion was trained on {', '.join(first_names(trained_on))}: where that is other text, expect drift"
