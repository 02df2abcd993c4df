"""Rows of tables and JSON records to documents: which column holds what, and what makes a row unusable."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lvm.data.sources.items import Document, IgnoredField, Item, Piece, Skipped, Unfit, is_unicode
from lvm.errors import InputError

FIELDS = ("doc_id", "text", "source", "chunk_index")
"""What a row can say. `source` is optional; `chunk_index` is read where text is cut already, with a row a chunk."""

ROW = "#"
"""Instead of a column's name: the number of the row, for rows that have no id, or that stand in order."""


@dataclass(frozen=True)
class Reading:
    """How the documents of all sources are read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """field -> the column or key that holds it, or `ROW`, where it has another name; see `FIELDS`."""

    chunked: bool = False
    """The text is cut already: a row a chunk, or a list of chunks a row."""

    keep_going: bool = False
    """Go on although more than half of the input is left out."""

    def __post_init__(self) -> None:
        """Raise `InputError` when a column is given for a field that is not read."""
        for name in self.columns:
            if name not in FIELDS:
                raise InputError(f"field 'columns': {name!r} is not a field that is read; there are {', '.join(FIELDS)}")

    def column(self, name: str) -> str:
        """The column that holds the field `name`."""
        return self.columns.get(name, name)


class RowReader:
    """Turns the rows of one file into documents, one at a time."""

    def __init__(self, shown: str, name: str, unit: str, source: str, reading: Reading, columns: Sequence[str] | None = None) -> None:
        """`shown` names the file in messages and `name` in ids; `unit` is what it calls a row; `source` is for rows that name none.

        `columns` are all that the file has, where rows hold only those that are read.
        """
        self._columns = columns
        self._shown, self._name, self._unit, self._source, self._reading = shown, name, unit, source, reading
        self._wanted = [reading.column(field) for field in FIELDS]
        self._ignored: set[str] = set()
        self._sound = False  # whether a row was read: an unsound first row speaks of the file, not of the row

    def __call__(self, number: int, row: Any) -> Iterator[Item]:
        """What row `number` holds. Raises `InputError` when it is malformed, `Unfit` when it is the first one that is looked at."""
        place = f"{self._shown}, {self._unit} {number}"
        try:
            if not isinstance(row, dict):
                raise InputError(f"{place}: expected an object with {' and '.join(map(repr, self._wanted[:2]))}, not {_type(row)}")
            item = self._item(place, number, row)
        except InputError as error:
            raise error if self._sound else Unfit(str(error)) from error
        self._sound = True
        for name in [name for name in self._columns or row if name not in self._wanted and name not in self._ignored]:
            self._ignored.add(name)
            yield IgnoredField(ascii(name) if not is_unicode(name) else name)
        yield item

    def _item(self, place: str, number: int, row: dict[str, Any]) -> Item:
        doc_id = self._identifier(place, number, row)
        text = self._value(place, row, "text")
        source = self._source_of(place, row)
        if doc_id is None:
            return Skipped(place, "no doc_id (null)")
        if text is None:
            return Skipped(doc_id, f"no text (null): {place}")
        if self._reading.chunked:
            return self._cut_already(place, number, row, doc_id, source, text)
        return Document(doc_id, source, self._string(place, "text", text))

    def _cut_already(self, place: str, number: int, row: dict[str, Any], doc_id: str, source: str, text: Any) -> Item:
        if isinstance(text, list | tuple):
            pieces = tuple(self._string(place, "text", piece) for piece in text if piece is not None)
            return Document(doc_id, source, "\n".join(pieces), pieces)
        column = self._reading.column("chunk_index")
        index = number if column == ROW else self._value(place, row, "chunk_index")
        if not isinstance(index, int) or isinstance(index, bool):
            raise InputError(f"{place}: field {column!r} is {_type(index)}: give the integer that puts the chunks of a document in order")
        return Piece(doc_id, source, self._string(place, "text", text), index)

    def _identifier(self, place: str, number: int, row: dict[str, Any]) -> str | None:
        column = self._reading.column("doc_id")
        if column == ROW:
            return f"{self._name}#{number}"
        value = self._value(place, row, "doc_id")
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self._string(place, "doc_id", value)

    def _source_of(self, place: str, row: dict[str, Any]) -> str:
        value = row.get(self._reading.column("source"))
        if value is None or value == "":
            return self._source
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self._string(place, "source", value)

    def _value(self, place: str, row: dict[str, Any], name: str) -> Any:
        """The value of a field that must be there, though it may be null."""
        column = self._reading.column(name)
        if column not in row:
            hint = f"--column {name}=NAME maps one of them" + (f", --column {name}={ROW} takes the row's number" if name != "text" else "")
            there = ", ".join(repr(key) for key in sorted(self._columns or row)[:20]) or "none"
            raise InputError(f"{place}: field {column!r} is missing; there are {there}: {hint}")
        return row[column]

    def _string(self, place: str, name: str, value: Any) -> str:
        column = self._reading.column(name)
        if isinstance(value, bytes):  # how Parquet files without the mark "string" give text
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise InputError(f"{place}: field {column!r} is broken UTF-8 at byte {error.start}") from error
        if not isinstance(value, str):
            cut = " (is the text cut already? then give --chunked)" if name == "text" and isinstance(value, list) else ""
            raise InputError(f"{place}: field {column!r} is {_type(value)}: expected {_expected(name)}{cut}")
        if not is_unicode(value):
            raise InputError(f"{place}: field {column!r} is not Unicode (half a surrogate pair)")
        return value


def _expected(name: str) -> str:
    if name == "text":
        return "text"
    rest = "; --column source=NAME takes another field" if name == "source" else ""
    return f"text or an integer{rest}"


def _type(value: Any) -> str:
    """The type of a value, as users of JSON and tables call it."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "an integer", float: "a number with decimals"}
    return "null" if value is None else names.get(type(value), f"of type {type(value).__name__}")
