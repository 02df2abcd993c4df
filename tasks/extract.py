"""Stage `extract`: documents to a dataset, in a folder named by its content."""

from pathlib import Path

from prefect import get_run_logger, task

from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.corpus import read_corpus
from lvm.data.encoders import load_encoder
from lvm.data.extract import dataset_key, extract_corpus, make_chunker
from lvm.data.reuse import reusable_datasets
from lvm.data.sources import Reading, by_reason
from lvm.devices import resolve_device
from tasks.workspace import Workspace

LOG_EVERY_CHUNKS = 8_192


@task
def extract_documents(
    workspace: Workspace,
    sources: list[str],
    encoder: str,
    max_docs: int | None,
    chunker: ChunkerConfig,
    splits: SplitConfig,
    device: str,
    reading: Reading = Reading(),
) -> Path:
    """Extract `sources` below `data/`, or find the dataset that an earlier run made of them. Returns its folder.

    Vectors of texts that another dataset below `data/` holds are taken from there.
    """
    logger = get_run_logger()
    loaded = load_encoder(encoder, str(resolve_device(device)))

    def progress(done: int, total: int) -> None:
        if done % LOG_EVERY_CHUNKS == 0 or done == total:
            logger.info("encoded %s of %s chunks", f"{done:,}", f"{total:,}")

    with read_corpus(sources, make_chunker(chunker, loaded), workspace.datasets, max_docs, reading) as corpus:
        out = workspace.datasets / dataset_key(corpus, splits, loaded)[:12]
        known = reusable_datasets(workspace.datasets, loaded, logger.warning)
        made = extract_corpus(corpus, out, loaded, splits, progress, known)
    m = made.manifest
    reused = ", reused" if made.reused else ""
    sums = ", ".join(f"{reason} {count:,}" for reason, count in by_reason(item["reason"] for item in m.skipped).items())
    logger.info("dataset %s: documents %s, chunks %s, left out: %s%s", made.path, m.documents, m.chunks, sums or "nothing", reused)
    for line in made.remarks:
        logger.info("%s", line)
    return made.path
