"""Chunks on their way into a dataset: cut, but not yet encoded.

The staged file holds them in the order in which the documents were read; `read_staged` brings them into the dataset's order
and divides the documents into splits.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from lvm.atomic_io import replacing
from lvm.config import SplitConfig
from lvm.data.corpus import ChunkedDocument, Corpus
from lvm.data.manifest import schema
from lvm.data.readable import cannot_read, sample_of, script_of
from lvm.data.sources import Skipped
from lvm.data.splits import assign_splits, duplicate_groups
from lvm.errors import InputError

_UNREADABLE = "unreadable"


@dataclass(frozen=True)
class StagedChunks:
    """The chunks of a dataset in their final order, without vectors."""

    table: pa.Table
    """One row a chunk, sorted by (doc_id, chunk_index)."""

    doc_splits: list[str]
    """The split of each document, in the order of their ids."""

    row_splits: list[str]
    """The split of each row."""

    duplicate_groups: int
    """Groups of two or more near-duplicate documents."""

    skipped: list[Skipped]
    """Documents without two chunks, and those of which the encoder cannot read most."""

    in_part: list[Skipped] = field(default_factory=list)
    """Documents of which single chunks were left out, since the encoder cannot read them."""


@dataclass(frozen=True)
class Unreadable:
    """What was left out of a document, since the encoder cannot read it."""

    doc_id: str
    left_out: int
    """Chunks that were left out."""

    chunks: int
    """Chunks in all."""

    script: str
    sample: str

    @property
    def most(self) -> bool:
        """Whether it is more than half of the document, so that what is left says little."""
        return 2 * self.left_out > self.chunks

    @property
    def entry(self) -> Skipped:
        """The entry in the manifest's list of what was left out."""
        what = "text" if self.most else "chunks"
        return Skipped(
            self.doc_id, f"{what} that the encoder cannot read: {self.left_out} of {self.chunks} chunks, {self.script}, {self.sample}"
        )


def stage_chunks(corpus: Corpus, file: Path) -> None:
    """Write the chunks of `corpus` to an Arrow file, a batch a document. It appears when it is complete.

    What the encoder cannot read of a document stands in the metadata of its batch, which is empty where that is most of it.
    """
    columns = pa.schema([column for column in schema(1) if column.name not in ("split", "embedding")])
    with replacing(file) as temporary, pa.ipc.new_file(temporary, columns) as writer:
        for document in corpus.chunked():
            left_out = _unreadable(document)
            chunks = [] if left_out and left_out.most else document.chunks
            n = len(chunks)
            values = [[document.doc_id] * n, range(n), [document.source] * n, [c.text for c in chunks], [c.n_tokens for c in chunks]]
            arrays = [pa.array(value, column.type) for value, column in zip(values, columns, strict=True)]
            batch = pa.record_batch(arrays, schema=columns)
            writer.write_batch(batch, {_UNREADABLE: json.dumps(asdict(left_out))} if left_out else None)


def _unreadable(document: ChunkedDocument) -> Unreadable | None:
    """What the encoder cannot read of a document; None when it can read all of it."""
    texts = document.unreadable
    if not texts:
        return None
    return Unreadable(document.doc_id, len(texts), len(texts) + len(document.chunks), script_of(texts), sample_of(texts[0]))


def read_staged(file: Path, doc_ids: Collection[str], config: SplitConfig, encoder: str) -> StagedChunks:
    """The chunks of `file` in the dataset's order, divided by `config`.

    `doc_ids` are the documents that were to be cut; those without two chunks are listed as skipped. Raises `InputError` when no document
    has two, and when the encoder, of this name, cannot read most of the chunks.
    """
    with pa.memory_map(str(file)) as mapped, pa.ipc.open_file(mapped) as reader:
        staged = [reader.get_batch_with_custom_metadata(number) for number in range(reader.num_record_batches)]
        table = pa.Table.from_batches([batch for batch, _ in staged], reader.schema)
    left_out = [Unreadable(**json.loads(metadata[_UNREADABLE])) for _, metadata in staged if metadata]
    _require_readable(left_out, len(table), encoder)
    unreadable = {found.doc_id: found for found in left_out}
    spans = _row_spans(table)
    usable = sorted(doc_id for doc_id, (start, stop) in spans.items() if stop - start > 1)
    skipped = [_why_skipped(doc_id, spans, unreadable) for doc_id in sorted(set(doc_ids) - set(usable))]
    if not usable:
        raise InputError(f"no document has two chunks or more ({len(skipped)} skipped)")
    in_part = [unreadable[doc_id].entry for doc_id in usable if doc_id in unreadable]
    lengths = [spans[doc_id][1] - spans[doc_id][0] for doc_id in usable]
    table = table.take(pa.array(np.concatenate([np.arange(*spans[doc_id]) for doc_id in usable])))
    groups = duplicate_groups(np.split(_text_hashes(table), np.cumsum(lengths)[:-1]), config.min_shared)
    doc_splits = assign_splits(usable, groups, config)
    row_splits = [split for split, length in zip(doc_splits, lengths, strict=True) for _ in range(length)]
    return StagedChunks(table, doc_splits, row_splits, int((np.bincount(groups) > 1).sum()), skipped, in_part)


def _why_skipped(doc_id: str, spans: dict[str, tuple[int, int]], unreadable: dict[str, Unreadable]) -> Skipped:
    if doc_id in unreadable:
        return unreadable[doc_id].entry
    return Skipped(doc_id, "one chunk: nothing to predict" if doc_id in spans else "no text")


def _require_readable(unreadable: list[Unreadable], rows: int, encoder: str) -> None:
    """Raise `InputError` when the encoder cannot read most of the chunks; `rows` are those that are kept."""
    left_out = sum(found.left_out for found in unreadable)
    total = rows + sum(found.chunks if found.most else found.left_out for found in unreadable)
    if 2 * left_out > total:
        worst = max(unreadable, key=lambda found: found.left_out)
        remedy = "choose a multilingual encoder, or one that knows them (--encoder sentence-transformers:<name or folder>)"
        raise InputError(f"{cannot_read(encoder, worst.script, f'{left_out:,} of {total:,} chunks are', worst.sample)}: {remedy}")


def _row_spans(table: pa.Table) -> dict[str, tuple[int, int]]:
    """doc_id -> first row of the document and the row after its last."""
    ids = table.column("doc_id").combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    return dict(zip(ids.dictionary.to_pylist(), zip(starts, [*starts[1:], len(codes)], strict=True), strict=True))


def _text_hashes(table: pa.Table) -> np.ndarray:
    """A hash of each row's text, uint64."""
    texts = table.column("text").to_pylist()
    return np.array([int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in texts], np.uint64)
