"""Documents to the dataset of record, streaming and resumable.

The documents are read once, cut into chunks, divided into splits, and encoded a shard at a time; the vectors are never all in
memory. Vectors of texts that another dataset holds are taken from there. An interrupted run finds its staged chunks and its finished
shards again. A repeated run finds the manifest and has nothing to do.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

import pyarrow.compute as pc

from lvm import __version__
from lvm.atomic_io import read_json, sha256_once, write_json
from lvm.config import FEWEST_TOKENS, ChunkerConfig, SplitConfig, parse
from lvm.data.chunker import Chunker
from lvm.data.corpus import Corpus, read_corpus
from lvm.data.encoders import Encoder, token_counts
from lvm.data.known_cuts import take_cuts, write_cuts
from lvm.data.manifest import SCHEMA_VERSION, SPLITS, Manifest, content_key, footer, read_manifest, write_manifest
from lvm.data.names import first_names
from lvm.data.recipe import EncoderRecipe
from lvm.data.reuse import KnownVectors, find_vectors, require_reusable
from lvm.data.shards import Progress, WrittenShards, write_shards
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

    moved: list[str]
    """Ids of documents that another split holds than in a dataset that was reused."""

    @property
    def reused_chunks(self) -> int:
        """Chunks whose vectors were taken from other datasets."""
        return sum(self.manifest.reused.values())

    @property
    def remarks(self) -> list[str]:
        """Where the vectors of a new dataset come from, and which documents changed their split, a sentence each."""
        if self.reused:
            return []
        lines = [f"encoded {self.encoded_chunks:,} chunks, reused {self.reused_chunks:,}"]
        if self.manifest.reused:
            lines[0] += f" of {' and '.join(digest[:12] for digest in self.manifest.reused)}"
        if self.moved:
            names = ", ".join(first_names(self.moved))
            why = "since a near-duplicate joined or left their group, or an empty split was filled"
            lines.append(f"{len(self.moved):,} known documents changed their split, {why}: {names}")
        return lines


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
    reuse: Sequence[Path] = (),
) -> Extracted:
    """Turn the documents of `sources`, or a sample of `max_docs` of them, into a dataset at `out`.

    Vectors of texts that a dataset of `reuse` holds are taken from there. Raises `InputError` as `make_chunker`, `read_corpus`,
    `extract_corpus` and, for every dataset of `reuse`, `require_reusable` do.
    """
    for path in reuse:
        require_reusable(path, encoder)
    with read_corpus(sources, make_chunker(chunker, encoder), out, max_docs, reading) as corpus:
        return extract_corpus(corpus, out, encoder, splits, progress, reuse)


def make_chunker(config: ChunkerConfig, encoder: Encoder) -> Chunker:
    """A chunker that counts the tokens of `encoder`; `InputError` when the encoder would truncate chunks of that budget."""
    added, reads = token_counts(encoder, [""])[0], encoder.recipe.max_tokens
    if config.max_tokens > reads - added:
        what = "special tokens and those of the prompt" if encoder.recipe.prompt else "special tokens"
        remedy = f"set chunker.max_tokens={reads - added} or less"
        if reads - added < FEWEST_TOKENS:
            remedy = f"at least {FEWEST_TOKENS} tokens of text must fit in: give another encoder or a shorter prompt"
        raise InputError(
            f"field 'chunker.max_tokens': {config.max_tokens} and {added} {what} are more than the {reads} that the encoder reads; {remedy}"
        )
    return Chunker(config, encoder.tokenizer)


def dataset_key(corpus: Corpus, splits: SplitConfig, encoder: Encoder) -> str:
    """The content address of the dataset that `extract_corpus` makes of these."""
    return content_key(SCHEMA_VERSION, corpus.digest(), corpus.chunker.config, splits, encoder.recipe, corpus.rules)


def extract_corpus(
    corpus: Corpus,
    out: Path,
    encoder: Encoder,
    splits: SplitConfig = SplitConfig(),
    progress: Progress = _no_progress,
    reuse: Iterable[Path] = (),
) -> Extracted:
    """Turn `corpus` into a dataset at `out`, or return at once when it is there already and whole. A damaged shard is written again.

    Vectors are taken from the datasets of `reuse`, which are looked at in this order until every text is found. Raises `InputError` when
    `out` holds another dataset, when no document has two chunks, when the encoder cannot read most of the chunks, when more than half of
    the input is left out and it was not asked to keep going, when the encoder gives vectors that are zero or not finite, or as
    `require_reusable` does.
    """
    key = dataset_key(corpus, splits, encoder)
    manifest = finished_dataset(out, key, encoder.recipe)
    if manifest is not None:
        return Extracted(out, manifest, reused=True, encoded_chunks=0, moved=[])
    first, second = tee(reuse)
    staged = out / "staging" / f"{key[:12]}.arrow"
    _require_same_endpoint(staged.with_suffix(".recipe.json"), encoder.recipe)
    cut_now = not staged.exists()
    if cut_now:
        take_cuts(corpus, first, encoder)
        stage_chunks(corpus, staged)
    chunks = read_staged(staged, corpus.kept, splits, encoder.recipe.name)
    corpus.require_half(chunks.skipped)
    metadata = footer(key, corpus.digest(), corpus.chunker.config, encoder.recipe)
    metadata |= {"lvm.encoder": encoder.recipe.name, "lvm.code_version": __version__}
    known = find_vectors(chunks.table, second, encoder, splits)
    written = write_shards(chunks, encoder, known, metadata, out, progress)
    manifest = _manifest(key, corpus, chunks, splits, encoder, written)
    write_manifest(out, manifest)
    if cut_now:  # what an interrupted run staged may have been cut by other rules
        write_cuts(out, manifest, corpus, _whole_documents(chunks, manifest), encoder)
    shutil.rmtree(out / "staging")
    return Extracted(out, manifest, reused=False, encoded_chunks=written.encoded, moved=_moved(chunks, known))


def _require_same_endpoint(file: Path, recipe: EncoderRecipe) -> None:
    """Raise `InputError` when an interrupted run had vectors of another model from the same endpoint; `file` remembers which."""
    if file.exists():
        begun = parse(EncoderRecipe, read_json(file, "delete it and the shards beside its folder"))
        begun.require_same(recipe, f"{file.parents[1]}, an extraction that was interrupted")
    elif recipe.golden:
        write_json(file, recipe.model_dump())


def _whole_documents(chunks: StagedChunks, manifest: Manifest) -> list[str]:
    """Ids of the dataset's documents of which nothing was left out."""
    left_out = {item["doc_id"] for item in manifest.skipped}
    return [doc_id for doc_id in pc.unique(chunks.table.column("doc_id")).to_pylist() if doc_id not in left_out]


def _moved(chunks: StagedChunks, known: KnownVectors) -> list[str]:
    """Ids of known documents that are in another split than they were."""
    doc_ids = pc.unique(chunks.table.column("doc_id")).to_pylist()
    return [doc_id for doc_id, split in zip(doc_ids, chunks.doc_splits, strict=True) if known.splits.get(doc_id, split) != split]


def finished_dataset(out: Path, key: str, recipe: EncoderRecipe) -> Manifest | None:
    """The manifest of the dataset at `out` when it is whole. Deletes the manifest and the damaged shards when it is not."""
    if not (out / "manifest.json").exists():
        return None
    manifest = read_manifest(out)
    if manifest.key != key:
        raise InputError(f"{out} holds another dataset (key {manifest.key[:12]}, not {key[:12]}): give another --out")
    manifest.recipe.require_same(recipe, f"dataset {out}")  # the key does not tell an endpoint's vectors apart
    files = {out / shard.file: shard.sha256 for shard in manifest.shards}
    damaged = [file for file, sha256 in files.items() if not file.is_file() or sha256_once(file) != sha256]
    if not damaged:
        return manifest
    (out / "manifest.json").unlink()
    for file in damaged:
        file.unlink(missing_ok=True)
    return None


def _manifest(key: str, corpus: Corpus, chunks: StagedChunks, splits: SplitConfig, encoder: Encoder, written: WrittenShards) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        key=key,
        rules=corpus.rules,
        source_digest=corpus.digest(),
        sources=sorted(set(chunks.table.column("source").to_pylist())),
        chunker=corpus.chunker.config,
        splits=splits,
        recipe=encoder.recipe,
        encoder_dtype=encoder.dtype,
        documents={split: chunks.doc_splits.count(split) for split in SPLITS},
        chunks={split: chunks.row_splits.count(split) for split in SPLITS},
        duplicate_groups=chunks.duplicate_groups,
        skipped=[vars(item) for item in corpus.skipped + chunks.skipped + chunks.in_part],
        ignored_fields=sorted(set(corpus.ignored_fields)),
        encodings=dict(sorted(corpus.encodings.items())),
        reused=dict(written.reused),
        shards=written.shards,
        code_version=__version__,
    )
