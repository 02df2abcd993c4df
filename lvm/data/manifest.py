"""The dataset of record on disk: Parquet shards, and the manifest that describes them."""

from pathlib import Path

import pyarrow as pa
from pydantic import Field

from lvm.atomic_io import digest_json, read_json, verified_fields, write_json_with_digest
from lvm.config import ChunkerConfig, Config, SplitConfig, parse
from lvm.data.recipe import NOT_IN_ID, EncoderRecipe
from lvm.errors import InputError

SCHEMA_VERSION = 1
FILE = "manifest.json"
REMEDY = "extract again into a new folder"
SPLITS = ("train", "val", "test")


class Shard(Config):
    """One Parquet file of a dataset."""

    file: str
    """Its name."""

    rows: int
    """Its chunks."""

    sha256: str
    """SHA-256 of its bytes."""


class Manifest(Config):
    """What a dataset contains. It is written last: where there is a manifest, all shards are there."""

    schema_version: int
    """Version of the column layout."""

    key: str
    """Identity of the content: `content_key` of the fields below."""

    rules: int = 1
    """Version of the chunker's rules; 1 also where a later version gives every document the chunks of the first."""

    source_digest: str
    """SHA-256 over the documents' ids and texts."""

    sources: list[str]
    """Names of the collections, without folders."""

    chunker: ChunkerConfig | None
    """How the text was cut; None where vectors were imported, since their chunks were made elsewhere."""

    splits: SplitConfig
    """How the documents were divided."""

    recipe: EncoderRecipe
    """How the chunks were encoded. Where vectors were imported: as their owner declared it."""

    encoder_dtype: str
    """Precision of the encoder, 'unknown' where vectors were imported; provenance, not identity."""

    documents: dict[str, int]
    """Documents in each split."""

    chunks: dict[str, int]
    """Chunks in each split."""

    duplicate_groups: int
    """Groups of two or more near-duplicate documents, kept on one side of the split."""

    skipped: list[dict[str, str]]
    """Files, rows, documents and parts of documents that were left out: doc_id (or file, or file and row) and reason."""

    reused: dict[str, int] = Field({})
    """Chunks whose vectors were taken from other datasets, by the dataset's digest; provenance, not identity."""

    ignored_fields: list[str]
    """Fields of the input that nothing read."""

    encodings: dict[str, int] = Field(default_factory=dict)
    """Files that were not UTF-8, by the encoding in which they were read."""

    shards: list[Shard] = Field(min_length=1)
    """The files, in row order."""

    code_version: str
    """Version of lvm that wrote this."""

    @property
    def digest(self) -> str:
        """SHA-256 of what later stages depend on: the key and the bytes of the shards."""
        return digest_json([self.key, [shard.sha256 for shard in self.shards]])


def content_key(
    schema_version: int, source_digest: str, chunker: ChunkerConfig | None, splits: SplitConfig, recipe: EncoderRecipe, rules: int = 1
) -> str:
    """The identity of a dataset: SHA-256 over all that decides which rows it has. Rules of version 1 are left out: keys are older."""
    fields = [schema_version, source_digest, chunker and chunker.model_dump(), splits.identity(), recipe.id]
    return digest_json(fields if rules == 1 else [*fields, rules])


def schema(dim: int, metadata: dict[str, str] | None = None) -> pa.Schema:
    """Columns of a shard, for vectors of dimension `dim`.

    `text` is null in every row of a dataset that was imported without texts, `n_tokens` where tokens were not counted.
    """
    fields = [
        ("doc_id", pa.string()),
        ("chunk_index", pa.int32()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("text", pa.string()),
        ("n_tokens", pa.int16()),
        ("embedding", pa.list_(pa.float32(), dim)),
    ]
    return pa.schema(fields, metadata=metadata)


def footer(key: str, source_digest: str, chunker: ChunkerConfig | None, recipe: EncoderRecipe) -> dict[str, str]:
    """The Parquet metadata of every shard: a shard without its manifest can still be identified."""
    return {
        "lvm.schema_version": str(SCHEMA_VERSION),
        "lvm.key": key,
        "lvm.source_digest": source_digest,
        "lvm.chunker": chunker.model_dump_json() if chunker else "null",
        "lvm.recipe": recipe.model_dump_json(exclude=NOT_IN_ID),
    }


def read_manifest(path: Path) -> Manifest:
    """The manifest of the dataset at `path`; `InputError` when there is none, it has another format, or its key is not its fields'."""
    file = path / FILE
    if not path.is_dir():
        raise InputError(f"dataset {path} is not a folder: make one with 'lvm extract --source ... --out {path}'")
    if not file.is_file():
        raise InputError(f"dataset {path} has no manifest.json: extraction did not finish; run 'lvm extract' again")
    values = read_json(file, REMEDY)
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{file}: field 'schema_version' must be {SCHEMA_VERSION}; {REMEDY}")
    # Version 0.1.0 wrote no digest of the manifest.
    found = parse(Manifest, verified_fields(file, values, REMEDY, required=False))
    if found.key != content_key(found.schema_version, found.source_digest, found.chunker, found.splits, found.recipe, found.rules):
        raise InputError(f"{file}: field 'key' is not that of source_digest, chunker, splits and recipe: one was altered; {REMEDY}")
    return found


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest of the dataset at `path`, durably."""
    write_json_with_digest(path / FILE, manifest.model_dump())
