"""The fields of an import, and the names that columns commonly have for them."""

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from lvm.errors import InputError

ALIASES = {
    "embedding": ("vector", "embeddings", "vectors", "emb"),
    "doc_id": ("document_id", "docid", "doc_ids", "ref_doc_id", "document"),
    "chunk_index": ("chunk_id", "chunk_number", "chunk_no", "chunk", "position"),
    "text": ("content", "chunk_text", "page_content", "body"),
    "source": ("collection",),
}
"""Other names of each field, as LanceDB, LlamaIndex, LangChain and tables of people's own have them."""

REQUIRED = ("embedding", "doc_id")


def resolve_columns(place: str, names: Collection[str], given: Mapping[str, str], required: Collection[str] = REQUIRED) -> dict[str, str]:
    """The column of each field, among the `names` that there are.

    A column that `given` names comes first, then the field's own name, then an alias. Raises `InputError`, which starts with `place`,
    when a given column is not there, when two aliases of one field are, and when one of the `required` fields has no column.
    """
    columns = dict(given)
    for field, column in columns.items():
        if column not in names:
            raise InputError(f"{place}: --column {field}={column}: there is no column {column!r}; there are {', '.join(names)}")
    for field, aliases in ALIASES.items():
        free = [name for name in (field, *aliases) if name in names and name not in columns.values()]
        if field in columns or not free:
            continue
        if free[0] != field and len(free) > 1:
            several = " and ".join(map(repr, free))
            raise InputError(f"{place}: columns {several} may each be the {field}: say which by --column {field}={free[0]}")
        columns[field] = free[0]
    for field in required:
        if field not in columns:
            raise InputError(
                f"{place}: there is no column {field!r} or {' or '.join(ALIASES[field])}; there are {', '.join(names)}: "
                f"name one by --column {field}=COLUMN"
            )
    return columns


def column_names(schema: pa.Schema) -> list[str]:
    """The names of all columns; a field of a struct column has the column's name before a dot, as in `metadata.doc_id`."""
    return [name for field in schema for name in _names(field.name, field.type)]


def _names(name: str, kind: pa.DataType) -> Iterator[str]:
    yield name
    if pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _names(f"{name}.{kind.field(i).name}", kind.field(i).type)


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The column with a name of `column_names`."""
    if name in batch.schema.names:
        return batch.column(batch.schema.names.index(name))
    first, *fields = name.split(".")
    return pc.struct_field(column_of(batch, first), fields)
