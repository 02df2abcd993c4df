"""Where documents come from: the built-in corpus, folders, files of many formats, URIs.

A kind of source is a function that is registered in `SOURCES`. It yields `Document`s one at a time, so that a corpus need not fit in
memory, and `Skipped` for whatever it leaves out, so that nothing disappears silently.
"""

import os
from collections.abc import Iterator

from lvm.config import SOURCES
from lvm.data.sources import kinds  # noqa: F401 (registers the package's own)
from lvm.data.sources.files import without_secrets
from lvm.data.sources.items import Document, Excluded, IgnoredField, Item, OtherEncoding, Piece, Skipped, by_reason
from lvm.data.sources.rows import FIELDS, Reading
from lvm.errors import InputError

__all__ = [
    "FIELDS",
    "Document",
    "Excluded",
    "IgnoredField",
    "Item",
    "OtherEncoding",
    "Piece",
    "Reading",
    "Skipped",
    "by_reason",
    "iter_source",
    "source_kinds",
]


def iter_source(spec: str, reading: Reading = Reading()) -> Iterator[Item]:
    """Yield the documents of one source, read by the first registered kind that matches `spec`.

    A kind matches its own name or, when it is registered with `takes="file"` or the like, its name with an argument: `name:<file>`. Kinds
    that are paths are registered with a function `matches(spec)` instead, and with `written`, which says in messages how they are
    written. One that is registered with `reading=True` is called with `reading` as a second argument: it knows columns, and text that
    is cut already. Raises `InputError` when no kind matches, and when a record is malformed.
    """
    for name, read in SOURCES.items():
        if not _matches(name, spec):
            continue
        if SOURCES.about(name).get("reading"):
            yield from read(spec, reading)
        elif reading.chunked:
            raise InputError(f"source {spec!r} gives whole documents: leave out --chunked, which is for tables of chunks")
        else:
            yield from read(spec)
        return
    shown = without_secrets(spec)
    if os.path.exists(spec):
        raise InputError(f"source {shown!r} is of an unknown kind: expected {source_kinds()}")
    raise InputError(f"source {shown!r} does not exist: give {source_kinds()}")


def source_kinds() -> str:
    """The kinds of sources, as they are written, for messages and help texts."""
    return ", ".join(_written(name) for name in SOURCES.names())


def _matches(name: str, spec: str) -> bool:
    about = SOURCES.about(name)
    if "matches" in about:
        return bool(about["matches"](spec))
    return spec.startswith(f"{name}:") if "takes" in about else spec == name


def _written(name: str) -> str:
    about = SOURCES.about(name)
    return str(about.get("written", f"{name}:<{about['takes']}>" if "takes" in about else name))
