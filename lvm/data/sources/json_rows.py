"""JSON: an object a line, or one array of objects."""

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from lvm.data.sources.encoding import marked
from lvm.data.sources.files import File
from lvm.data.sources.items import Item, Unfit
from lvm.data.sources.rows import Reading, RowReader
from lvm.errors import InputError

MARK = codecs.BOM_UTF8


def read_json(file: File, source: str, reading: Reading) -> Iterator[Item]:
    """The rows of `file`. JSON lines are read one at a time, an array as a whole."""
    with file.open() as stream:
        start = _peek(stream)
        encoding = marked(start) or json.detect_encoding(start)
        if start.decode(encoding, "ignore").lstrip("\ufeff \t\r\n").startswith("["):
            yield from _array(stream.read(), encoding, file, source, reading)
        elif encoding.startswith("utf-8"):
            yield from _lines(stream, file, source, reading)
        else:
            yield from _lines(_recoded(stream, encoding, file.shown), file, source, reading)


def _peek(stream: BinaryIO) -> bytes:
    return stream.peek(4096)[:4096] if isinstance(stream, io.BufferedReader) else b""


def _recoded(stream: BinaryIO, encoding: str, shown: str) -> Iterator[bytes]:
    """The lines of UTF-16 or UTF-32 as UTF-8."""
    number = 0
    try:
        for line in io.TextIOWrapper(stream, encoding, newline="\n"):
            yield line.encode()
            number += 1
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}, line {number + 1} or soon after it: broken {encoding.upper()}") from error


def _lines(lines: Any, file: File, source: str, reading: Reading) -> Iterator[Item]:
    rows = RowReader(file.shown, file.name, "line", source, reading)
    before = False
    for number, line in enumerate(lines, 1):
        line = line.strip(MARK + b" \t\r\n")  # files that were joined have a mark in the middle, too
        if not line:
            continue
        try:
            row = _parsed(line, f"{file.shown}, line {number}")
        except InputError as error:
            raise error if before else Unfit(str(error)) from error
        before = True
        yield from rows(number, row)


def _array(content: bytes, encoding: str, file: File, source: str, reading: Reading) -> Iterator[Item]:
    rows = RowReader(file.shown, file.name, "item", source, reading)
    try:
        content = content.decode(encoding).lstrip("\ufeff").encode() if not encoding.startswith("utf-8") else content
        values = _parsed(content.strip(MARK), file.shown)
    except UnicodeError as error:
        raise InputError(f"{file.shown}: broken {encoding.upper()}") from error
    for number, row in enumerate(values, 1):
        yield from rows(number, row)


def _parsed(content: bytes, place: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: broken UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{place}: not JSON ({error.msg}, column {error.colno}); expected an object a line, or an array of them"
        ) from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, thousands of brackets
        raise InputError(f"{place}: not JSON that can be read ({type(error).__name__}: {error})") from error
