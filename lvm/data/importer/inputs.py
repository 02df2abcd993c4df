"""The inputs of an import: what each kind of file holds, as blocks of rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from lvm.data.importer.arrays import Archive, as_float32, read_array
from lvm.data.importer.block import BLOCK_ROWS, RowBlock, block_of
from lvm.data.importer.fields import column_names, resolve_columns
from lvm.data.importer.id_files import read_id_table
from lvm.data.importer.tables import TableFile, is_table, table_files
from lvm.data.importer.windows import REMARK, holds_windows, window_blocks
from lvm.data.sources import Skipped
from lvm.errors import InputError

KINDS = "a .parquet or .arrow file, a folder of them, an .npz file, or an .npy file with --ids"


@dataclass
class Inputs:
    """The files of an import. Iterating reads them: blocks of rows, each with the name of its collection."""

    files: list[Path]
    dim: int
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field -> column, as they were given."""

    ids: Path | None = None
    """The table of ids beside an .npy file."""

    in_order: bool = False
    """Whether rows stand in the order of their chunks."""

    skipped: list[Skipped] = field(default_factory=list)
    """Files that are no tables."""

    ignored: set[str] = field(default_factory=set)
    """Columns that nothing reads."""

    renamed: dict[str, str] = field(default_factory=dict)
    """Field -> column, where an alias was found."""

    remarks: list[str] = field(default_factory=list)
    """What cannot be known of such an input."""

    def __post_init__(self) -> None:
        """Refuse what no row of can be read."""
        for file in self.files:
            if not file.exists():
                raise InputError(f"{file} does not exist: give {KINDS}")
        arrays = [file for file in self.files if file.suffix.lower() == ".npy"]
        if self.ids is not None and (len(arrays), len(self.files)) != (1, 1):
            raise InputError(f"--ids {self.ids} goes with one .npy file and nothing else: give that one alone")
        if arrays and self.ids is None:
            raise InputError(f"{arrays[0]} holds vectors without ids: give a file with a row for each vector by --ids")

    def __iter__(self) -> Iterator[tuple[RowBlock, str]]:
        """Read every file in turn."""
        for file in self.files:
            source = (file.resolve() if file.is_dir() else file.with_suffix("")).name
            for block in self._blocks(file):
                yield block, source

    def _blocks(self, path: Path) -> Iterator[RowBlock]:
        suffix = path.suffix.lower()
        if path.is_dir():
            files, others = table_files(path)
            self.skipped += others
            for file in files:
                yield from self._table(TableFile(file, path))
        elif is_table(path):
            yield from self._table(TableFile(path))
        elif suffix == ".npz":
            archive = Archive(path)
            if holds_windows(archive):
                self.remarks.append(REMARK)
                yield from window_blocks(archive, self.dim)
            else:
                yield from self._archive(archive)
        elif suffix == ".npy":
            yield from self._array(path)
        else:
            raise InputError(f"{path} is of an unknown kind: give {KINDS}")

    def _table(self, table: TableFile) -> Iterator[RowBlock]:
        columns, first = self._resolved(str(table.path), column_names(table.schema)), 1
        for batch in table.batches(list(columns.values())):
            yield block_of(batch, columns, self.dim, str(table.path), first)
            first += len(batch)

    def _array(self, path: Path) -> Iterator[RowBlock]:
        assert self.ids is not None
        vectors, rows = read_array(path), read_id_table(self.ids)
        self._require_shape(vectors.shape, str(path))
        if len(rows) != len(vectors):
            raise InputError(f"{self.ids} has {len(rows)} rows, but {path} has {len(vectors)} vectors: give one row for each vector")
        columns = self._resolved(str(self.ids), column_names(rows.schema), ("doc_id",))
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = as_float32(vectors[start : start + BLOCK_ROWS], str(path))
            yield block_of(_batch(rows, start), columns, self.dim, str(self.ids), start + 1, block)

    def _archive(self, archive: Archive) -> Iterator[RowBlock]:
        """Arrays of one length, as the columns of a table."""
        columns = self._resolved(str(archive.path), archive.names)
        vectors = columns.pop("embedding")
        shape = archive.shape(vectors)
        self._require_shape(shape, f"{archive.path}, array {vectors!r}")
        arrays = {name: archive.whole(name) for name in columns.values()}
        for name, array in arrays.items():
            if array.shape != shape[:1]:
                raise InputError(
                    f"{archive.path}, array {name!r} is of shape {array.shape}, but there are {shape[0]} vectors: give one for each"
                )
        rows, start = pa.table({name: pa.array(array) for name, array in arrays.items()}), 0
        for block in archive.blocks(vectors):
            yield block_of(_batch(rows, start), columns, self.dim, str(archive.path), start + 1, block)
            start += len(block)

    def _require_shape(self, shape: tuple[int, ...], what: str) -> None:
        if len(shape) != 2 or shape[1] != self.dim:
            raise InputError(f"{what} is of shape {list(shape)}, but the recipe says dim {self.dim}: give an array [N, {self.dim}]")

    def _resolved(self, place: str, names: list[str], required: tuple[str, ...] = ("embedding", "doc_id")) -> dict[str, str]:
        """The columns of the fields that are read here; notes the others."""
        columns = resolve_columns(place, names, self.columns, required)
        if self.in_order:
            columns.pop("chunk_index", None)
        elif "chunk_index" not in columns:
            raise InputError(
                f"{place}: there is no column 'chunk_index', so their order is not known; there are {', '.join(names)}: name one "
                "by --column chunk_index=COLUMN, or give --in-order if the rows of each document stand in their order"
            )
        if "embedding" not in required:
            columns.pop("embedding", None)
        self.renamed |= {name: column for name, column in columns.items() if name != column}
        read = {column.split(".")[0] for column in columns.values()} | set(columns.values())
        self.ignored |= {name for name in names if "." not in name and name not in read}
        return columns


def _batch(rows: pa.Table, start: int) -> pa.RecordBatch:
    """The rows of a block."""
    part = rows.slice(start, BLOCK_ROWS).combine_chunks()
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in part.columns], names=part.column_names)
