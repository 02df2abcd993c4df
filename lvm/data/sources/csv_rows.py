"""Tables as text: .csv and .tsv, with the names of the columns in the first line."""

import csv
import io
import sys
from collections.abc import Iterator

from lvm.data.sources.encoding import UnknownEncodingError, decode
from lvm.data.sources.files import File
from lvm.data.sources.items import Item, OtherEncoding, Unfit
from lvm.data.sources.rows import Reading, RowReader
from lvm.errors import InputError

DELIMITERS = ",;\t"
"""Spreadsheets of some languages write a semicolon."""


def read_csv(file: File, source: str, reading: Reading) -> Iterator[Item]:
    """The rows of `file`, with its fields as text. The delimiter is the one of `DELIMITERS` that the first line has most of."""
    try:
        text, encoding = decode(file.read())
    except UnknownEncodingError as error:
        raise InputError(f"{file.shown}: {error}: save it as UTF-8") from error
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses fields over 131,072 characters: a long document
    head = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = "\t" if file.suffix == ".tsv" else max(DELIMITERS, key=head.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    rows = RowReader(file.shown, file.name, "line", source, reading)
    if encoding != "utf-8":
        yield OtherEncoding(encoding)
    try:
        for fields in lines:
            if not fields:
                continue
            if not columns:
                columns = _named(fields, file)
            elif len(fields) != len(columns):
                raise InputError(f"{file.shown}, line {lines.line_num}: {len(fields)} fields, but the first line names {len(columns)}")
            else:
                yield from rows(lines.line_num, dict(zip(columns, fields, strict=True)))
    except csv.Error as error:
        raise InputError(f"{file.shown}, line {lines.line_num}: not {file.suffix.removeprefix('.').upper()} ({error})") from error


def _named(fields: list[str], file: File) -> list[str]:
    twice = next((name for name in fields if fields.count(name) > 1), None)
    if twice is not None:
        raise Unfit(f"{file.shown}, line 1: column {twice!r} stands there twice; the first line must name the columns")
    return fields
