"""Which column of an input holds which field, as `--column FIELD=COLUMN` says."""

from collections.abc import Collection, Sequence

from lvm.errors import InputError


def parse_columns(assignments: Sequence[str], fields: Collection[str]) -> dict[str, str]:
    """The column of each field that `assignments` name, as in `doc_id=docid`.

    `fields` are those that the command reads. Raises `InputError` for an assignment without a field or a column, an unknown field, a
    field that is given twice, and a column that is to hold two fields.
    """
    columns: dict[str, str] = {}
    for assignment in assignments:
        field, _, column = (part.strip() for part in assignment.partition("="))
        if not field or not column:
            raise InputError(f"--column {assignment!r}: write FIELD=COLUMN, as doc_id=docid")
        if field not in fields:
            raise InputError(f"--column {assignment!r}: {field!r} is not a field that is read here; there are {', '.join(fields)}")
        if columns.setdefault(field, column) != column:
            raise InputError(f"--column: field {field!r} is given twice, as {columns[field]!r} and as {column!r}; give it once")
    for column in columns.values():
        holding = [field for field, other in columns.items() if other == column]
        if len(holding) > 1:
            raise InputError(f"--column: column {column!r} is to hold {' and '.join(holding)}; give each field a column of its own")
    return columns
