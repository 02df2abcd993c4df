"""Documents to the dataset of record, streaming and resumable.

The documents are read once, cut into chunks, divided into splits, and encoded a shard at a time; the vectors are never all in
memory. An interrupted run finds its staged chunks and its finished shards again. A repeated run finds the manifest and has
nothing to do.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lvm import __version__
from lvm.atomic_io import sha256_once
from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.chunker import Chunker
from lvm.data.corpus import Corpus, read_corpus
from lvm.data.encoders import Encoder
from lvm.data.manifest import SCHEMA_VERSION, SPLITS, Manifest, Shard, content_key, footer, read_manifest, write_manifest
from lvm.data.shards import Progress, write_shards
from lvm.data.sources import Reading
from lvm.data.staging import StagedChunks, read_staged, stage_chunks
from lvm.errors import InputError


@dataclass(frozen=True)
class Extracted:
    """The result of an extraction."""

    path: Path
    manifest: Manifest

    reused: bool
    """Whether the dataset was there already."""

    encoded_chunks: int
    """Chunks that this run encoded."""


def _no_progress(done: int, total: int) -> None:
    """Show nothing."""


def extract(
    sources: Sequence[str],
    out: Path,
    encoder: Encoder,
    chunker: ChunkerConfig = ChunkerConfig(),
    splits: SplitConfig = SplitConfig(),
    max_docs: int | None = None,
    progress: Progress = _no_progress,
    reading: Reading = Reading(),
) -> Extracted:
    """Turn the documents of `sources`, or a sample of `max_docs` of them, into a dataset at `out`.

    Raises `InputError` as `make_chunker`, `read_corpus` and `extract_corpus` do.
    """
    with read_corpus(sources, make_chunker(chunker, encoder), out, max_docs, reading) as corpus:
        return extract_corpus(corpus, out, encoder, splits, progress)


def make_chunker(config: ChunkerConfig, encoder: Encoder) -> Chunker:
    """A chunker that counts the tokens of `encoder`; `InputError` when the encoder would truncate chunks of that budget."""
    specials = encoder.tokenizer.num_special_tokens_to_add(False)
    limit = encoder.recipe.max_tokens - specials
    if config.max_tokens > limit:
        raise InputError(
            f"field 'chunker.max_tokens': {config.max_tokens} and {specials} special tokens are more than the {encoder.recipe.max_tokens} "
            f"that the encoder reads; set chunker.max_tokens={limit} or less"
        )
    return Chunker(config, encoder.tokenizer)


def dataset_key(corpus: Corpus, splits: SplitConfig, encoder: Encoder) -> str:
    """The content address of the dataset that `extract_corpus` makes of these."""
    return content_key(SCHEMA_VERSION, corpus.digest(), corpus.chunker.config, splits, encoder.recipe)


def extract_corpus(
    corpus: Corpus, out: Path, encoder: Encoder, splits: SplitConfig = SplitConfig(), progress: Progress = _no_progress
) -> Extracted:
    """Turn `corpus` into a dataset at `out`, or return at once when it is there already and whole. A damaged shard is written again.

    Raises `InputError` when `out` holds another dataset, when no document has two chunks, when more than half of the input is left out
    and it was not asked to keep going, or when the encoder gives vectors that are zero or not finite.
    """
    key = dataset_key(corpus, splits, encoder)
    manifest = _finished(out, key)
    if manifest is not None:
        return Extracted(out, manifest, reused=True, encoded_chunks=0)
    staged = out / "staging" / f"{key[:12]}.arrow"
    if not staged.exists():
        stage_chunks(corpus, staged)
    chunks = read_staged(staged, corpus.kept, splits)
    corpus.require_half(chunks.skipped)
    metadata = footer(key, corpus.digest(), corpus.chunker.config, encoder.recipe)
    metadata |= {"lvm.encoder": encoder.recipe.name, "lvm.code_version": __version__}
    shards, encoded = write_shards(chunks, encoder, metadata, out, progress)
    manifest = _manifest(key, corpus, chunks, splits, encoder, shards)
    write_manifest(out, manifest)
    shutil.rmtree(out / "staging")
    return Extracted(out, manifest, reused=False, encoded_chunks=encoded)


def _finished(out: Path, key: str) -> Manifest | None:
    """The manifest of the dataset at `out` when it is whole. Deletes the manifest and the damaged shards when it is not."""
    if not (out / "manifest.json").exists():
        return None
    manifest = read_manifest(out)
    if manifest.key != key:
        raise InputError(f"{out} holds another dataset (key {manifest.key[:12]}, not {key[:12]}): give another --out")
    files = {out / shard.file: shard.sha256 for shard in manifest.shards}
    damaged = [file for file, sha256 in files.items() if not file.is_file() or sha256_once(file) != sha256]
    if not damaged:
        return manifest
    (out / "manifest.json").unlink()
    for file in damaged:
        file.unlink(missing_ok=True)
    return None


def _manifest(key: str, corpus: Corpus, chunks: StagedChunks, splits: SplitConfig, encoder: Encoder, shards: list[Shard]) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        key=key,
        source_digest=corpus.digest(),
        sources=sorted(set(chunks.table.column("source").to_pylist())),
        chunker=corpus.chunker.config,
        splits=splits,
        recipe=encoder.recipe,
        encoder_dtype=encoder.dtype,
        documents={split: chunks.doc_splits.count(split) for split in SPLITS},
        chunks={split: chunks.row_splits.count(split) for split in SPLITS},
        duplicate_groups=chunks.duplicate_groups,
        skipped=[vars(item) for item in corpus.skipped + chunks.skipped],
        ignored_fields=sorted(set(corpus.ignored_fields)),
        encodings=dict(sorted(corpus.encodings.items())),
        shards=shards,
        code_version=__version__,
    )
