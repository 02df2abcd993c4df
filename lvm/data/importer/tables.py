"""Parquet and Arrow files, and folders of them, a block of rows at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from lvm.data.importer.block import BLOCK_ROWS
from lvm.data.sources import Skipped
from lvm.errors import InputError

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
LANCE = ".lance"


def table_files(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """Every Parquet and Arrow file below `folder`, in the order of their paths, and the other files.

    What begins with a dot or an underscore is no data, by the custom of the libraries that write such folders. Raises `InputError` when
    there is no table.
    """
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    found = [file for file in found if not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)]
    tables = [file for file in found if is_table(file)]
    if not tables:
        lance = folder.suffix.lower() == LANCE or any(file.suffix.lower() == LANCE for file in found)
        remedy = "a Lance table is to be written as Parquet first" if lance else "give a folder with .parquet or .arrow files"
        raise InputError(f"folder {folder} contains no Parquet or Arrow file: {remedy}")
    others = [file.relative_to(folder).as_posix() for file in found if not is_table(file)]
    return tables, [Skipped(name, "not a Parquet or Arrow file") for name in others]


def is_table(path: Path) -> bool:
    """Whether the name is that of a Parquet or Arrow file."""
    return path.suffix.lower() in PARQUET + ARROW


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Raise `InputError` for what the library raises at a damaged file."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}): copy or write it again") from error


class TableFile:
    """A Parquet or Arrow file that is read in blocks."""

    def __init__(self, path: Path, root: Path | None = None) -> None:
        """Open the file; `root` is the folder from which on its path may name columns, as in `year=2024/part.parquet`."""
        self.path = path
        self._stream = False
        with explaining(path):
            try:
                self._data = self._open(root)
            except pa.ArrowInvalid:  # an Arrow stream, as Hugging Face's `save_to_disk` writes, is no file of this format
                if path.suffix.lower() not in ARROW:
                    raise
                self._stream = True
                with pa.OSFile(str(path)) as file:
                    self.schema = pa.ipc.open_stream(file).schema
            else:
                self.schema = self._data.schema

    def _open(self, root: Path | None) -> Any:
        if self.path.suffix.lower() in PARQUET:
            # Without these a whole row group is held in memory, which may be the whole file.
            options = ds.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
            kind: Any = ds.ParquetFileFormat(default_fragment_scan_options=options)
        else:
            kind = ds.IpcFileFormat()
        hive = {"partitioning": ds.partitioning(flavor="hive"), "partition_base_dir": str(root)} if root else {}
        return ds.dataset(str(self.path), format=kind, **hive)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows in their order, at most `BLOCK_ROWS` at once, with the top-level columns that hold `columns`."""
        names = self.schema.names
        wanted = list(dict.fromkeys(name if name in names else name.split(".")[0] for name in columns))
        with explaining(self.path):
            if self._stream:
                with pa.OSFile(str(self.path)) as file:
                    for batch in pa.ipc.open_stream(file):
                        part = batch.select(wanted)
                        yield from (part.slice(start, BLOCK_ROWS) for start in range(0, len(part), BLOCK_ROWS))
                return
            scanner = self._data.scanner(wanted, batch_size=BLOCK_ROWS, batch_readahead=1, fragment_readahead=1)
            yield from (batch for batch in scanner.to_batches() if len(batch))
