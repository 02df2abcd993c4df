"""Which reader a file is for, by its suffix; and the reader of files that hold one document."""

from collections.abc import Callable, Iterator

from lvm.data.sources.csv_rows import read_csv
from lvm.data.sources.encoding import UnknownEncodingError, decode
from lvm.data.sources.files import DamagedError, File
from lvm.data.sources.items import Document, Item, OtherEncoding, Skipped
from lvm.data.sources.json_rows import read_json
from lvm.data.sources.parquet_rows import read_parquet
from lvm.data.sources.prose import PROSE
from lvm.data.sources.rows import Reading
from lvm.errors import InputError

TABLES: dict[str, Callable[[File, str, Reading], Iterator[Item]]] = {
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".pq": read_parquet,
}
"""Readers of files with a document a row, by suffix."""

SUFFIXES = (*PROSE, *TABLES)


def read_file(file: File, source: str, reading: Reading) -> Iterator[Item]:
    """The documents of `file`, which `SUFFIXES` must know.

    A file that holds one document is skipped when it cannot be read; a table is refused with `InputError`, `Unfit` if its first row
    shows that it holds no documents.
    """
    if file.suffix in PROSE:
        yield from _one_document(file, source, reading)
        return
    try:
        yield from TABLES[file.suffix](file, source, reading)
    except DamagedError as error:
        raise InputError(f"{file.shown} is truncated, damaged or cannot be opened: copy it again ({error})") from error


def _one_document(file: File, source: str, reading: Reading) -> Iterator[Item]:
    if reading.chunked:
        yield Skipped(file.name, "not cut already: --chunked reads tables")
        return
    try:
        text, encoding = decode(file.read(), html=file.suffix in (".html", ".htm", ".xhtml"))
        text = PROSE[file.suffix](text)
    except DamagedError as error:
        yield Skipped(file.name, f"damaged or cannot be opened: {error}")
    except UnknownEncodingError as error:
        yield Skipped(file.name, str(error))
    except InputError:
        raise
    except Exception as error:  # parsers of markup fail in their own ways; one document must not end the reading of all
        yield Skipped(file.name, f"no {file.suffix} that its parser can read: {type(error).__name__}")
    else:
        if encoding != "utf-8":
            yield OtherEncoding(encoding)
        yield Document(file.name, source, text)
