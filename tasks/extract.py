"""Stage `extract`: documents to a dataset named by its content."""

from pathlib import Path

from prefect import get_run_logger, task

from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.encoders import load_encoder
from lvm.data.extract import dataset_key, extract, scan_sources
from lvm.devices import resolve_device
from tasks.workspace import Workspace

LOG_EVERY_CHUNKS = 8_192


@task
def extract_documents(workspace: Workspace, sources: list[str], encoder: str, max_docs: int | None, max_tokens: int, device: str) -> Path:
    """Extract `sources` below `data/`, or find the dataset that an earlier run made of them."""
    logger = get_run_logger()
    loaded = load_encoder(encoder, str(resolve_device(device)))
    chunker, splits = ChunkerConfig(max_tokens=max_tokens), SplitConfig()
    key = dataset_key(scan_sources(sources, max_docs).digest(), chunker, splits, loaded.recipe.id)

    def progress(done: int, total: int) -> None:
        if done % LOG_EVERY_CHUNKS == 0 or done == total:
            logger.info("encoded %s of %s chunks", f"{done:,}", f"{total:,}")

    made = extract(sources, workspace.datasets / key[:12], loaded, chunker, splits, max_docs, progress)
    m = made.manifest
    logger.info(
        "dataset %s: documents %s, chunks %s, skipped %d%s",
        made.path,
        m.documents,
        m.chunks,
        len(m.skipped),
        ", reused" if made.reused else "",
    )
    return made.path
