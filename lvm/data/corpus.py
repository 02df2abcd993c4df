"""The documents of some sources, read once and cut into chunks once, however often they are used.

What is read goes to a temporary file on disk: a corpus need not fit in memory, and its sources may be slow.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lvm.atomic_io import digest_json, explaining_full_disk
from lvm.data.chunker import Chunk, Chunker
from lvm.data.sources import Document, IgnoredField, Skipped, iter_source, source_kinds
from lvm.errors import InputError


class Spool:
    """JSON values by name, on disk.

    The file has no name in any folder: the operating system frees it when it is closed, or when the process ends for whatever reason.
    """

    def __init__(self, near: Path) -> None:
        """Open an empty spool on the disk that holds `near`, or will hold it."""
        self._near = near
        self._file = TemporaryFile(dir=_writable_folder(near))  # noqa: SIM115 (closed by `close`)
        self._offsets: dict[str, int] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        with explaining_full_disk(self._near):
            self._offsets[name] = self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")

    def __getitem__(self, name: str) -> Any:
        with explaining_full_disk(self._near):  # a read first writes out what is still buffered
            self._file.seek(self._offsets[name])
            return json.loads(self._file.readline())

    def __contains__(self, name: str) -> bool:
        return name in self._offsets

    def __iter__(self) -> Iterator[str]:
        """Names, in the order in which they were stored."""
        return iter(self._offsets)

    def close(self) -> None:
        """Free the space on disk."""
        with suppress(OSError):  # closing writes out the buffer, which a full disk refuses again; nobody reads it any more
            self._file.close()


@dataclass(frozen=True)
class ChunkedDocument:
    """A document in chunks."""

    doc_id: str
    source: str
    chunks: list[Chunk]


@dataclass
class Corpus:
    """Documents of some sources that can be used, and what was left out of them."""

    chunker: Chunker
    """How the documents are cut."""

    documents: Spool
    """doc_id -> [source, text], of every usable document."""

    chunks: Spool
    """doc_id -> [[text, number of tokens], ...], of the documents that were cut already."""

    kept: dict[str, str] = field(default_factory=dict)
    """doc_id -> SHA-256 of the text as it was read, for the documents of this corpus. Line breaks count: they decide where text is cut."""

    skipped: list[Skipped] = field(default_factory=list)
    """Documents that were left out."""

    ignored_fields: list[str] = field(default_factory=list)
    """Fields of the input that nothing reads."""

    def digest(self) -> str:
        """SHA-256 over ids and texts of the documents, in whatever order they were read."""
        return digest_json(sorted(self.kept.items()))

    def only(self, doc_ids: Collection[str]) -> "Corpus":
        """The documents with these ids. What was read and cut is shared."""
        wanted = set(doc_ids)
        return replace(self, kept={doc_id: sha256 for doc_id, sha256 in self.kept.items() if doc_id in wanted})

    def sample(self, count: int) -> "Corpus":
        """`count` of the documents, or all there are.

        A hash of the ids chooses, so that a sample is a fair picture of the corpus and not its oldest end, and a larger sample contains
        the smaller one.
        """
        by_hash = sorted(self.kept, key=lambda doc_id: hashlib.sha256(b"sample" + doc_id.encode()).digest())
        return self.only(by_hash[:count])

    def chunked(self) -> Iterator[ChunkedDocument]:
        """The documents in chunks, in the order in which they were read. Each is cut the first time that it is asked for."""
        for doc_id in self.documents:
            if doc_id not in self.kept:
                continue
            source, text = self.documents[doc_id]
            if doc_id in self.chunks:
                chunks = [Chunk(*values) for values in self.chunks[doc_id]]
            else:
                chunks = self.chunker(text)
                self.chunks[doc_id] = [[chunk.text, chunk.n_tokens] for chunk in chunks]
            yield ChunkedDocument(doc_id, source, chunks)


@contextmanager
def read_corpus(sources: Sequence[str], chunker: Chunker, near: Path, max_docs: int | None = None) -> Iterator[Corpus]:
    """Read every document of `sources` once, and yield those that can be used; or a sample of `max_docs` of them.

    The texts lie in a temporary file on the disk of `near` until the block ends. Raises `InputError` when there is no source, a source
    is malformed, one doc_id has two texts, or no document can be used.
    """
    if not sources:
        raise InputError(f"no source: give --source with {source_kinds()}")
    documents = Spool(near)
    chunks = Spool(near)
    try:
        corpus = Corpus(chunker, documents, chunks)
        _read(sources, corpus)
        if not corpus.kept:
            raise InputError(f"no usable document in {', '.join(sources)}: {len(corpus.skipped)} skipped")
        yield corpus if max_docs is None else corpus.sample(max_docs)
    finally:
        documents.close()
        chunks.close()


def _read(sources: Sequence[str], corpus: Corpus) -> None:
    """Store the usable documents of `sources` in `corpus`; list the others, and fields that nothing reads."""
    words_of: dict[str, str] = {}  # doc_id -> hash of the text's words
    first_with: dict[str, str] = {}  # hash of the words -> doc_id
    for item in (item for source in sources for item in iter_source(source)):
        if isinstance(item, Skipped):
            corpus.skipped.append(item)
        elif isinstance(item, IgnoredField):
            corpus.ignored_fields.append(item.name)
        elif reason := _why_unusable(item, words_of, first_with):
            corpus.skipped.append(Skipped(item.doc_id, reason))
        else:
            corpus.kept[item.doc_id] = hashlib.sha256(item.text.encode()).hexdigest()
            corpus.documents[item.doc_id] = [item.source, item.text]


def _why_unusable(document: Document, words_of: dict[str, str], first_with: dict[str, str]) -> str | None:
    """Why a document is left out: it is empty, or has the words of one read before. None when it is kept."""
    words = hashlib.sha256(" ".join(document.text.split()).encode()).hexdigest()
    if words_of.setdefault(document.doc_id, words) != words:
        raise InputError(f"doc_id {document.doc_id!r} stands for two different texts: give each document its own")
    if not document.text.strip():
        return "empty"
    if words in first_with:
        return f"duplicate of {first_with[words]}"
    first_with[words] = document.doc_id
    return None


def _writable_folder(near: Path) -> Path | None:
    """The nearest folder at or above `near` that exists and can be written to; None for the system's temporary folder."""
    folders = [near.absolute(), *near.absolute().parents]
    return next((folder for folder in folders if folder.is_dir() and os.access(folder, os.W_OK)), None)
