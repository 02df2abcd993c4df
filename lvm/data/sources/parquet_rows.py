"""Parquet files, read a batch at a time whatever their row groups; folders named `column=value` are columns too."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.dataset as ds

from lvm.data.sources.files import File
from lvm.data.sources.items import Item
from lvm.data.sources.rows import FIELDS, ROW, Reading, RowReader
from lvm.errors import InputError

BATCH_ROWS = 256
"""Rows in memory at a time: a row may hold a long document."""


def read_parquet(file: File, source: str, reading: Reading) -> Iterator[Item]:
    """The rows of `file`. Columns that nothing reads stay on disk."""
    try:
        table = ds.dataset(file.path, filesystem=file.system, format="parquet", partitioning="hive")
        names = table.schema.names
        wanted = [name for name in names if name in {reading.column(field) for field in FIELDS}]
        rows = RowReader(file.shown, file.name, "row", source, reading, names)
        if not {reading.column("doc_id"), reading.column("text")} - {ROW} <= set(names):
            yield from rows(1, dict.fromkeys(names))  # refused, naming the columns that are there
        number = 0
        batches = table.to_batches(columns=wanted, batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1)
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield from rows(number, row)
    except InputError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{file.shown} is not a readable Parquet file (truncated, broken UTF-8, a column twice?): {error}") from error
