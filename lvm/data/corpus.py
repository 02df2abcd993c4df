"""The documents of some sources, read once and cut into chunks once, however often they are used.

What is read goes to a temporary file on disk: a corpus need not fit in memory, and its sources may be slow.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from lvm.atomic_io import digest_json
from lvm.data.chunker import RULES, Chunk, Chunker
from lvm.data.pieces import join_pieces
from lvm.data.sources import Document, Excluded, IgnoredField, OtherEncoding, Reading, Skipped, by_reason, iter_source, source_kinds
from lvm.data.sources.files import without_secrets
from lvm.data.spool import Spool
from lvm.errors import InputError


@dataclass(frozen=True)
class ChunkedDocument:
    """A document in chunks."""

    doc_id: str
    source: str
    chunks: list[Chunk]

    unreadable: list[str]
    """Pieces that are left out, since the encoder cannot read them."""


@dataclass
class Corpus:
    """Documents of some sources that can be used, and what was left out of them."""

    chunker: Chunker
    """How the documents are cut."""

    documents: Spool
    """doc_id -> [source, text], of every usable document; [source, [text of a chunk, ...]] of one that the input has in chunks."""

    chunks: Spool
    """doc_id -> [[[text, number of tokens], ...], [unreadable text, ...]], of the documents that were cut already."""

    kept: dict[str, str] = field(default_factory=dict)
    """doc_id -> SHA-256 of the text as it was read, for the documents of this corpus.

    Line breaks count, and chunks that the input has: they decide where the text is cut.
    """

    skipped: list[Skipped] = field(default_factory=list)
    """Files, rows and documents that were left out."""

    ignored_fields: list[str] = field(default_factory=list)
    """Fields of the input that nothing reads."""

    encodings: Counter[str] = field(default_factory=Counter)
    """Files that are not UTF-8, by the encoding that was recognised."""

    keep_going: bool = False
    """Whether more than half of the input may be left out."""

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
            if doc_id not in self.chunks:
                cut = self.chunker.cut(text)
                self.chunks[doc_id] = [[[chunk.text, chunk.n_tokens] for chunk in cut.chunks], cut.unreadable]
            chunks, unreadable = self.chunks[doc_id]
            yield ChunkedDocument(doc_id, source, [Chunk(*values) for values in chunks], unreadable)

    @cached_property
    def rules(self) -> int:
        """The version of the chunker's rules that the chunks of this corpus are of: 1 where that gave every document the same ones."""
        texts = (self.documents[doc_id][1] for doc_id in self.documents if doc_id in self.kept)
        return 1 if all(map(self.chunker.cuts_as_version_1, texts)) else RULES

    def require_half(self, without_chunks: Sequence[Skipped] = ()) -> None:
        """Raise `InputError` when more than half of the input is left out, unless `keep_going`.

        `without_chunks` are documents of this corpus that turned out unusable when they were cut. Of a sample, the share of these is
        taken for that of the whole.
        """
        lost = sum(not isinstance(item, Excluded) for item in self.skipped)
        usable = sum(1 for _ in self.documents)
        share = usable / (usable + lost) * (1 - len(without_chunks) / len(self.kept))
        if share >= 0.5 or self.keep_going:
            return
        raise InputError(
            f"{1 - share:.0%} of the input is left out ({told([*self.skipped, *without_chunks])}), more than half: "
            "mend it, or take the rest with --keep-going"
        )


@contextmanager
def read_corpus(
    sources: Sequence[str], chunker: Chunker, near: Path, max_docs: int | None = None, reading: Reading = Reading()
) -> Iterator[Corpus]:
    """Read every document of `sources` once, and yield those that can be used; or a sample of `max_docs` of them.

    The texts lie in a temporary file on the disk of `near` until the block ends. Raises `InputError` when there is no source, a source
    is malformed, one doc_id has two texts, no document can be used, or more than half of the input cannot.
    """
    if not sources:
        raise InputError(f"no source: give --source with {source_kinds()}")
    if max_docs is not None and max_docs < 1:
        raise InputError(f"field 'max_docs' is {max_docs}: give 1 or more, or leave it out")
    documents = Spool(near)
    chunks = Spool(near)
    try:
        corpus = Corpus(chunker, documents, chunks, keep_going=reading.keep_going)
        _read(sources, corpus, reading, near)
        if not corpus.kept:
            shown = ", ".join(without_secrets(source) for source in sources)
            raise InputError(f"no usable document in {shown}: {len(corpus.skipped)} skipped{_examples(corpus.skipped)}")
        corpus.require_half()
        yield corpus if max_docs is None else corpus.sample(max_docs)
    finally:
        documents.close()
        chunks.close()


def told(skipped: Sequence[Skipped]) -> str:
    """What was left out, as "empty 3, duplicate 1"."""
    return ", ".join(f"{reason} {count:,}" for reason, count in by_reason(item.reason for item in skipped).items())


def _examples(skipped: Sequence[Skipped]) -> str:
    return f" ({told(skipped)}; the first: {skipped[0].doc_id}, {skipped[0].reason})" if skipped else ""


def _read(sources: Sequence[str], corpus: Corpus, reading: Reading, near: Path) -> None:
    """Store the usable documents of `sources` in `corpus`; list what is left out, and fields that nothing reads."""
    known = _Known(sources)
    for source in sources:
        for item in join_pieces(iter_source(source, reading), near):
            if isinstance(item, Skipped):
                corpus.skipped.append(item)
            elif isinstance(item, IgnoredField):
                corpus.ignored_fields.append(item.name)
            elif isinstance(item, OtherEncoding):
                corpus.encodings[item.encoding] += 1
            elif isinstance(item, Document):
                doc_id, reason = known.register(source, item)
                if reason:
                    corpus.skipped.append(Skipped(doc_id, reason))
                else:
                    identity = item.text if item.pieces is None else json.dumps(item.pieces)
                    corpus.kept[doc_id] = hashlib.sha256(identity.encode()).hexdigest()
                    corpus.documents[doc_id] = [item.source, item.text if item.pieces is None else item.pieces]


class _Known:
    """The documents that were read so far, by id and by words."""

    def __init__(self, sources: Sequence[str]) -> None:
        self._labels = _labels(sources)
        self._of_id: dict[str, tuple[str, str]] = {}  # doc_id -> hash of the text's words, --source
        self._first_with: dict[str, str] = {}  # hash of the words -> doc_id

    def register(self, source: str, document: Document) -> tuple[str, str | None]:
        """The document's id in the corpus, and why it is left out: it is empty, or has the words of one read before.

        An id that another source has for another text gets this source's name in front.
        """
        words = hashlib.sha256(" ".join(document.text.split()).encode()).hexdigest()
        doc_id = document.doc_id
        if doc_id in self._of_id and self._of_id[doc_id][0] != words and self._of_id[doc_id][1] != source:
            doc_id = f"{self._labels[source]}/{doc_id}"
        if self._of_id.setdefault(doc_id, (words, source))[0] != words:
            raise InputError(
                f"doc_id {doc_id!r} stands for two different texts in {without_secrets(source)}: give each document its own, "
                "or name another field by --column doc_id=NAME, or number the rows by --column doc_id=#"
            )
        if not document.text.strip():
            return doc_id, "empty"
        if words in self._first_with:
            return doc_id, f"duplicate: of {self._first_with[words]}"
        self._first_with[words] = doc_id
        return doc_id, None


def _labels(sources: Sequence[str]) -> dict[str, str]:
    """A name for each source: the end of its path, as long as it takes to tell it from those before it."""
    labels: dict[str, str] = {}
    earlier: list[tuple[str, ...]] = []
    for source in dict.fromkeys(sources):
        own = PurePosixPath(without_secrets(source)).parts
        length = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in earlier)), len(own))
        labels[source] = "/".join(own[-length:])
        earlier.append(own)
    return labels
