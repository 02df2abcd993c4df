"""The file of ids beside an .npy file: a row for each vector."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from lvm.data.importer.fields import column_names
from lvm.data.importer.tables import TableFile, explaining, is_table
from lvm.errors import InputError


def read_id_table(path: Path) -> pa.Table:
    """The rows of a .txt file with a doc_id a line, of a .csv, .tsv or .jsonl file with named columns, or of a Parquet or Arrow file.

    Raises `InputError` when the file is of another kind, or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"--ids {path} does not exist or is not a file: give one with a row for each vector")
    suffix = path.suffix.lower()
    with explaining(path):
        if is_table(path):
            table = TableFile(path)
            names = [name for name in column_names(table.schema) if not _holds_lists(table.schema, name)]
            return pa.Table.from_batches(table.batches(names)).select(names)
        if suffix == ".txt":
            lines = path.read_bytes().decode("utf-8-sig").splitlines()
            return pa.table({"doc_id": pa.array([line.strip() or None for line in lines], pa.string())})
        if suffix in (".csv", ".tsv"):
            parse = pyarrow.csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True)
            return pyarrow.csv.read_csv(path, parse_options=parse)
        if suffix in (".jsonl", ".ndjson"):
            return pyarrow.json.read_json(path)
    raise InputError(f"--ids {path} is of an unknown kind: give a .txt, .csv, .tsv, .jsonl, .parquet or .arrow file")


def _holds_lists(schema: pa.Schema, name: str) -> bool:
    return "." in name or pa.types.is_nested(schema.field(name).type)
