"""Documents to the dataset of record, streaming and resumable.

Four passes, none of which gathers the vectors: read the documents for their digest and their
duplicates; cut them into a staging file of chunks without vectors; divide them; encode shard
after shard. An interrupted run finds its staging file and its finished shards again; a repeated
one finds the manifest and has nothing to do.
"""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lvm import __version__
from lvm.atomic_io import digest_json, replacing, sha256_file, write_json
from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.chunker import Chunker
from lvm.data.dataset import SCHEMA_VERSION, SPLITS, Manifest, Shard, footer, read_manifest, schema
from lvm.data.encoders import Encoder
from lvm.data.sources import Document, IgnoredField, Skipped, iter_source
from lvm.data.splits import assign_splits, duplicate_groups
from lvm.errors import InputError

SHARD_ROWS = 16_384


ROW_GROUP_ROWS = 8_192


Progress = Callable[[int, int], None]
"""Called with (chunks done, chunks in all) as encoding goes on."""


@dataclass
class Scan:
    """What one reading of the sources found."""

    kept: dict[str, str] = field(default_factory=dict)
    """doc_id -> SHA-256 of the text as it stands: line breaks decide where it is cut."""

    skipped: list[Skipped] = field(default_factory=list)
    ignored_fields: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """SHA-256 over the kept documents, whatever order they came in."""
        return digest_json(sorted(self.kept.items()))


@dataclass(frozen=True)
class Extracted:
    """The result of `extract`."""

    path: Path
    manifest: Manifest
    reused: bool
    encoded_chunks: int


def dataset_key(source_digest: str, chunker: ChunkerConfig, splits: SplitConfig, recipe_id: str) -> str:
    """The content address of a dataset."""
    return digest_json([SCHEMA_VERSION, source_digest, chunker.model_dump(), splits.model_dump(), recipe_id])


def scan_sources(sources: Sequence[str], max_docs: int | None = None, only: Collection[str] | None = None) -> Scan:
    """Read every document once: digests, copies, skips.

    `max_docs` keeps that many documents, chosen by a hash of their ids, so that a small corpus
    is a fair sample of the large one and not its oldest end; `only` keeps those of these ids. Raises `InputError` when one
    doc_id stands for two texts, or when nothing is left.
    """
    if not sources:
        raise InputError("no source: give --source builtin:sotu, a folder, a .jsonl[.gz] or a .parquet file")
    scan = Scan()
    owner: dict[str, str] = {}
    seen: dict[str, str] = {}
    for item in _items(sources):
        if isinstance(item, Skipped):
            scan.skipped.append(item)
        elif isinstance(item, IgnoredField):
            scan.ignored_fields.append(item.name)
        else:
            words = hashlib.sha256(" ".join(item.text.split()).encode()).hexdigest()
            if seen.setdefault(item.doc_id, words) != words:
                raise InputError(f"doc_id {item.doc_id!r} stands for two different texts: give each document its own")
            if not item.text.strip():
                scan.skipped.append(Skipped(item.doc_id, "empty"))
            elif words in owner:
                scan.skipped.append(Skipped(item.doc_id, f"duplicate of {owner[words]}"))
            else:
                owner[words] = item.doc_id
                scan.kept[item.doc_id] = hashlib.sha256(item.text.encode()).hexdigest()
    if only is not None:
        scan.kept = {doc_id: text for doc_id, text in scan.kept.items() if doc_id in only}
    if max_docs is not None:
        chosen = sorted(scan.kept, key=lambda d: hashlib.sha256(b"sample" + d.encode()).digest())[:max_docs]
        scan.kept = {doc_id: scan.kept[doc_id] for doc_id in sorted(chosen)}
    if not scan.kept:
        raise InputError(f"no usable document in {', '.join(sources)}: {len(scan.skipped)} skipped")
    return scan


def extract(
    sources: Sequence[str],
    out: Path,
    encoder: Encoder,
    chunker: ChunkerConfig = ChunkerConfig(),
    splits: SplitConfig = SplitConfig(),
    max_docs: int | None = None,
    progress: Progress = lambda done, total: None,
    only: Collection[str] | None = None,
) -> Extracted:
    """Turn documents, or `only` those of these ids, into a dataset at `out`; return at once when it is already there and whole.

    Raises `InputError` when `out` holds another dataset, when a source is malformed, when the
    encoder gives vectors that are zero or not finite, or when its limit is under the budget.
    """
    specials = encoder.tokenizer.num_special_tokens_to_add(False)
    if chunker.max_tokens + specials > encoder.recipe.max_tokens:
        raise InputError(
            f"field 'max_tokens': {chunker.max_tokens} + {specials} special tokens exceed the encoder's "
            f"{encoder.recipe.max_tokens}; give --max-tokens {encoder.recipe.max_tokens - specials} or less"
        )
    scan = scan_sources(sources, max_docs, only)
    key = dataset_key(scan.digest(), chunker, splits, encoder.recipe.id)
    if (out / "manifest.json").exists():
        manifest = read_manifest(out)
        if manifest.key != key:
            raise InputError(f"{out} holds another dataset (key {manifest.key[:12]}, not {key[:12]}): give another --out")
        damaged = [out / s.file for s in manifest.shards if not (out / s.file).is_file() or sha256_file(out / s.file) != s.sha256]
        if not damaged:
            return Extracted(out, manifest, reused=True, encoded_chunks=0)
        (out / "manifest.json").unlink()
        for file in damaged:
            file.unlink(missing_ok=True)
    staging = out / "staging" / f"{key[:12]}.arrow"
    if not staging.exists():
        _stage(sources, scan, Chunker(chunker, encoder.tokenizer), staging)
    plan = _Plan.read(staging, scan, splits)
    metadata = footer(key, scan.digest(), chunker, encoder.recipe) | {"lvm.encoder": encoder.recipe.name, "lvm.code_version": __version__}
    shards, encoded = _encode(plan, encoder, metadata, out, progress)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        key=key,
        source_digest=scan.digest(),
        sources=sorted(set(plan.table.column("source").to_pylist())),
        chunker=chunker,
        splits=splits,
        recipe=encoder.recipe,
        encoder_dtype=encoder.dtype,
        documents={split: plan.doc_splits.count(split) for split in SPLITS},
        chunks={split: plan.row_splits.count(split) for split in SPLITS},
        duplicate_groups=plan.duplicate_groups,
        skipped=[vars(item) for item in scan.skipped + plan.skipped],
        ignored_fields=sorted(set(scan.ignored_fields)),
        shards=shards,
        code_version=__version__,
    )
    write_json(out / "manifest.json", manifest.model_dump())
    shutil.rmtree(out / "staging")
    return Extracted(out, manifest, reused=False, encoded_chunks=encoded)


def _items(sources: Sequence[str]) -> Iterator[Document | Skipped | IgnoredField]:
    for spec in sources:
        yield from iter_source(spec)


def _stage(sources: Sequence[str], scan: Scan, chunker: Chunker, staging: Path) -> None:
    """Cut the kept documents into chunks and write them, in source order, without vectors."""
    columns = pa.schema([f for f in schema(1) if f.name not in ("split", "embedding")])
    waiting = dict(scan.kept)
    with replacing(staging) as temporary, pa.ipc.new_file(temporary, columns) as writer:
        for item in _items(sources):
            if not isinstance(item, Document) or waiting.pop(item.doc_id, None) is None:
                continue
            chunks = chunker(item.text)
            if chunks:
                n = len(chunks)
                values = [[item.doc_id] * n, range(n), [item.source] * n, [c.text for c in chunks], [c.n_tokens for c in chunks]]
                arrays = [pa.array(v, f.type) for v, f in zip(values, columns, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=columns))


@dataclass(frozen=True)
class _Plan:
    """The staged chunks in their final order, with the split of each."""

    table: pa.Table
    doc_splits: list[str]
    row_splits: list[str]
    duplicate_groups: int
    skipped: list[Skipped]

    @classmethod
    def read(cls, staging: Path, scan: Scan, config: SplitConfig) -> "_Plan":
        with pa.memory_map(str(staging)) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        ids = table.column("doc_id").combine_chunks().dictionary_encode()
        codes = ids.indices.to_numpy()
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        spans = dict(zip(ids.dictionary.to_pylist(), zip(starts, [*starts[1:], len(codes)], strict=True), strict=True))
        usable = sorted(doc for doc, (start, stop) in spans.items() if stop - start > 1)
        skipped = [
            Skipped(doc, "one chunk: nothing to predict" if doc in spans else "no text") for doc in sorted(set(scan.kept) - set(usable))
        ]
        if not usable:
            raise InputError(f"no document has two chunks or more ({len(skipped)} skipped)")
        rows = np.concatenate([np.arange(*spans[doc]) for doc in usable])
        table = table.take(pa.array(rows))
        lengths = [int(spans[doc][1] - spans[doc][0]) for doc in usable]
        hashes = np.array(
            [int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest()) for t in table.column("text").to_pylist()], np.uint64
        )
        groups = duplicate_groups(np.split(hashes, np.cumsum(lengths)[:-1]), config.min_shared)
        doc_splits = assign_splits(usable, groups, config)
        row_splits = [split for split, n in zip(doc_splits, lengths, strict=True) for _ in range(n)]
        return cls(table, doc_splits, row_splits, int((np.bincount(groups) > 1).sum()), skipped)


def _encode(plan: _Plan, encoder: Encoder, metadata: dict[str, str], out: Path, progress: Progress) -> tuple[list[Shard], int]:
    """Write the shards that are not there yet; return all of them and the number of chunks encoded now."""
    columns = schema(encoder.recipe.dim, metadata)
    shards, encoded, total = [], 0, len(plan.table)
    for number, start in enumerate(range(0, total, SHARD_ROWS)):
        file = out / f"chunks-{number:05d}.parquet"
        part = plan.table.slice(start, SHARD_ROWS)
        if not _is_finished(file, metadata["lvm.key"], len(part)):
            vectors = _encode_shard(part, encoder, partial(_advance, progress, start, total))
            values = {name: part.column(name) for name in part.column_names}
            values["split"] = pa.array(plan.row_splits[start : start + len(part)])
            values["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), encoder.recipe.dim)
            with replacing(file) as temporary:
                # Vectors neither compress nor repeat: plain storage reads 2.5 times faster.
                pq.write_table(
                    pa.table([values[f.name] for f in columns], schema=columns),
                    temporary,
                    row_group_size=ROW_GROUP_ROWS,
                    compression={f.name: "none" if f.name == "embedding" else "zstd" for f in columns} | {"embedding.list.element": "none"},
                    use_dictionary=["doc_id", "source", "split"],
                )
            encoded += len(part)
        else:
            progress(start + len(part), total)
        shards.append(Shard(file=file.name, rows=len(part), sha256=sha256_file(file)))
    return shards, encoded


def _advance(progress: Progress, start: int, total: int, done: int) -> None:
    progress(start + done, total)


def _is_finished(file: Path, key: str, rows: int) -> bool:
    """Whether an earlier, interrupted run wrote this shard. Shards appear by rename, hence whole."""
    if not file.exists():
        return False
    try:
        found = pq.read_metadata(file)
    except (OSError, ValueError):  # not Parquet, or cut short since: written anew
        return False
    return (found.metadata or {}).get(b"lvm.key") == key.encode() and found.num_rows == rows


def _encode_shard(part: pa.Table, encoder: Encoder, progress: Callable[[int], None]) -> np.ndarray:
    """Encode one shard's texts longest first, so that a batch pads little; float32 [rows, dim]."""
    texts = part.column("text").to_pylist()
    order = np.argsort(-part.column("n_tokens").to_numpy(), kind="stable")
    vectors = np.empty((len(texts), encoder.recipe.dim), np.float32)
    for start in range(0, len(order), encoder.group):
        rows = order[start : start + encoder.group]
        encoded = encoder.encode([texts[i] for i in rows])
        if encoded.shape != (len(rows), encoder.recipe.dim):
            raise InputError(f"the encoder gave vectors of shape {encoded.shape}, its recipe says dimension {encoder.recipe.dim}")
        vectors[rows] = encoded
        progress(start + len(rows))
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(bad):
        names = {part.column("doc_id")[int(row)].as_py() for row in bad[:5]}
        raise InputError(f"the encoder gave {len(bad)} zero or non-finite vectors, in {sorted(names)}: check its weights and dtype")
    return vectors
