"""Some rows of an input in one form, whatever they were read from."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lvm.data.importer.fields import column_of
from lvm.errors import InputError

BLOCK_ROWS = 4_096
"""Rows that are read at once."""


class Problem(IntEnum):
    """Why a row cannot be used."""

    NONE = 0
    NO_VECTOR = 1
    ZERO_VECTOR = 2
    NO_CHUNK_INDEX = 3
    NO_TEXT = 4
    TORN_WINDOW = 5

    @property
    def reason(self) -> str:
        """As the manifest says it."""
        return REASONS[self]


REASONS = {
    Problem.NONE: "",
    Problem.NO_VECTOR: "no vector, or one with missing or infinite numbers",
    Problem.ZERO_VECTOR: "vector of zeros",
    Problem.NO_CHUNK_INDEX: "chunk without chunk_index",
    Problem.NO_TEXT: "no text",
    Problem.TORN_WINDOW: "window that does not continue the one before it, as when some are missing, shuffled or altered",
}


@dataclass(frozen=True)
class RowBlock:
    """Rows in the order in which they were read."""

    place: str
    """The file, for messages."""

    first: int
    """Number of the first row in that file, from 1."""

    vectors: np.ndarray
    """float32 [n, D]; NaN where a row has no vector."""

    doc_ids: pa.Array
    """string [n]; null where a row has none."""

    chunk_index: pa.Array | None
    """int64 [n]; None without such a column."""

    texts: pa.Array | None
    """string [n]; None without such a column."""

    sources: pa.Array | None
    """string [n]; None without such a column."""

    problems: np.ndarray
    """uint8 [n]: what was found to be wrong with each row, a `Problem`."""


def block_of(
    batch: pa.RecordBatch, columns: Mapping[str, str], dim: int, place: str, first: int, vectors_ND: np.ndarray | None = None
) -> RowBlock:
    """The rows of `batch`, whose fields are in `columns`; `vectors_ND` are their vectors where these come from elsewhere.

    Raises `InputError` with the place when a column has a type that its field cannot have, or a vector another dimension than `dim`.
    """
    found = {name: column_of(batch, column) for name, column in columns.items()}
    if vectors_ND is None:
        vectors_ND = vectors_of(found["embedding"], dim, f"{place}, column {columns['embedding']!r}", first)
    text, source, index = found.get("text"), found.get("source"), found.get("chunk_index")
    index = None if index is None else integers_of(index, f"{place}, column {columns['chunk_index']!r}")
    text = None if text is None else strings(text, f"{place}, column {columns['text']!r}", first)
    return RowBlock(
        place=place,
        first=first,
        vectors=vectors_ND,
        doc_ids=strings(found["doc_id"], f"{place}, column {columns['doc_id']!r}", first, integers=True),
        chunk_index=index,
        texts=text,
        sources=None if source is None else strings(source, f"{place}, column {columns['source']!r}", first),
        problems=np.zeros(len(batch), np.uint8),
    )


def vectors_of(column: pa.Array, dim: int, what: str, first: int) -> np.ndarray:
    """A column of lists of floats as float32 [n, dim]; a missing vector or number is NaN."""
    if isinstance(column, pa.ExtensionArray):  # such as a tensor of fixed shape
        column = column.storage
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise InputError(f"{what} is of type {kind}: give lists of float16, float32 or float64")
    there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    whole = column.drop_null()
    lengths = pc.list_value_length(whole).to_numpy(zero_copy_only=False)
    if (wrong := np.flatnonzero(lengths != dim)).size:
        row = first + int(there[wrong[0]])
        raise InputError(
            f"{what}, row {row}: a vector of dimension {lengths[wrong[0]]}, but the recipe says dim {dim}; correct one of them"
        )
    numbers = whole.flatten().to_numpy(zero_copy_only=False)
    vectors = np.full((len(column), dim), np.nan, np.float32)
    with np.errstate(over="ignore"):  # beyond float32: infinite, and refused as such
        vectors[there] = numbers.reshape(-1, dim)
    return vectors


def strings(column: pa.Array, what: str, first: int, integers: bool = False) -> pa.Array:
    """A column as strings; whole numbers too where they serve as ids."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (text or pa.types.is_null(kind) or (integers and pa.types.is_integer(kind))):
        raise InputError(f"{what} is of type {kind}: give strings{' or whole numbers' if integers else ''}")
    found = column.cast(pa.string())
    try:
        found.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"{what}, from row {first}: {error}; write the file again") from error
    return found


def integers_of(column: pa.Array, what: str) -> pa.Array:
    """A column of whole numbers as int64. Whole numbers with a decimal point are taken too: a table with gaps makes them of integers."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
        raise InputError(
            f"{what} is of type {column.type}, but chunk_index counts the chunks of a document: give whole numbers, or name another "
            "column by --column chunk_index=COLUMN"
        )
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise InputError(f"{what} holds numbers that are not whole: give whole numbers") from error
