"""Reading a source as tests do: its documents, what it leaves out, its refusal."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lvm.data.sources import Document, Reading, Skipped, iter_source
from lvm.errors import InputError

ROWS = [
    {"doc_id": "first", "text": "The harvest was good. The roads were dry."},
    {"doc_id": "second", "text": "Rivers rise in spring.\nThey fall in autumn.", "source": "almanac"},
]


def json_lines(rows: Iterable[Any]) -> bytes:
    """The rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_parquet(path: Path, rows: list[Mapping[str, Any]], **options: Any) -> str:
    """Write the rows as a Parquet file; returns the path as a source."""
    columns = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), path, **options)
    return str(path)


def documents(spec: Any, **reading: Any) -> list[Document]:
    """The documents of a source."""
    return [item for item in iter_source(str(spec), Reading(**reading)) if isinstance(item, Document)]


def left_out(spec: Any, **reading: Any) -> list[tuple[str, str]]:
    """What a source leaves out, with the reasons."""
    return [(item.doc_id, item.reason) for item in iter_source(str(spec), Reading(**reading)) if isinstance(item, Skipped)]


def refusal(spec: Any, **reading: Any) -> str:
    """The sentence with which a source is refused."""
    with pytest.raises(InputError) as caught:
        list(iter_source(str(spec), Reading(**reading)))
    return str(caught.value)
