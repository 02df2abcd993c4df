"""The rows of all inputs: vectors in a file on disk, everything else in memory."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lvm.atomic_io import explaining_full_disk
from lvm.data.importer.block import Problem, RowBlock
from lvm.data.importer.norms import Norms
from lvm.data.recipe import EncoderRecipe
from lvm.data.sources import Skipped
from lvm.data.vectors import vector_digests
from lvm.errors import InputError


class Numbering:
    """Numbers for the strings of a column, from 0 in the order of their first occurrence."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, column: pa.Array) -> np.ndarray:
        """int32 [n]: the numbers of strings none of which is null."""
        encoded = column.dictionary_encode()
        known = [self._numbers.setdefault(name, len(self._numbers)) for name in encoded.dictionary.to_pylist()]
        return np.array(known, np.int32)[encoded.indices.to_numpy()]

    @property
    def names(self) -> list[str]:
        """The string with each number."""
        return list(self._numbers)


class Gathered:
    """Rows in the order in which they were read; see `gather`."""

    def __init__(self, file: IO[bytes], recipe: EncoderRecipe, in_order: bool) -> None:
        self._file, self._dim, self._in_order = file, recipe.dim, in_order
        self._documents, self._sources, self._norms = Numbering(), Numbering(), Norms(recipe.normalize)
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._texts: list[pa.Array] = []
        self._without_id: Counter[str] = Counter()

    def add(self, block: RowBlock, default_source: str) -> None:
        """Store the rows of a block; `default_source` names the collection of rows that do not."""
        there = block.doc_ids.is_valid().to_numpy(zero_copy_only=False)
        if self._in_order and not there.all():
            row = block.first + int(np.flatnonzero(~there)[0])
            raise InputError(f"{block.place}, row {row} has no doc_id, so some document lacks a chunk: give it one, or a chunk_index")
        self._without_id[block.place] += int((~there).sum())
        rows = np.flatnonzero(there)
        doc = self._documents.of(block.doc_ids.take(pa.array(rows)))
        vectors = block.vectors[rows]
        problems = np.maximum(block.problems[rows], self._norms.add(vectors, rows, block))
        names = pa.nulls(len(block.doc_ids), pa.string()) if block.sources is None else block.sources
        source = self._sources.of(names.fill_null(default_source).take(pa.array(rows)))
        index = np.zeros(len(rows), np.int64)
        if block.chunk_index is not None and not self._in_order:
            index = block.chunk_index.fill_null(0).to_numpy(zero_copy_only=False)[rows]
            problems[block.chunk_index.is_null().to_numpy(zero_copy_only=False)[rows]] = Problem.NO_CHUNK_INDEX
        self._parts.append((doc, index, source, problems, vector_digests(vectors)))
        texts = pa.nulls(len(block.doc_ids), pa.string()) if block.texts is None else block.texts
        self._texts.append(texts.take(pa.array(rows)).cast(pa.large_string()))
        self._file.write(np.ascontiguousarray(vectors).data)

    def finish(self) -> None:
        """Bring the parts together. Raises `InputError` when there are no rows, or the norms are not those of the recipe."""
        self._norms.require()
        if not sum(len(doc) for doc, *_ in self._parts):
            raise InputError("the input holds no row with a doc_id and a vector: give a table with both")
        self._file.flush()
        self.doc, index, self.source, self.problems, self.digests = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        self.chunk_index = self._running_index() if self._in_order else index
        self.texts = pa.chunked_array(self._texts).combine_chunks()
        if self.texts.null_count == len(self.texts):
            self.texts = None
        else:
            empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(self.texts)), 0).fill_null(True).to_numpy(zero_copy_only=False)
            self.problems[empty & (self.problems == Problem.NONE)] = Problem.NO_TEXT
        self._parts, self._texts = [], []
        self.vectors = np.memmap(self._file, np.float32, "r", shape=(len(self.doc), self._dim))

    def _running_index(self) -> np.ndarray:
        """int64 [N]: the place of each row among those of its document, in the order in which they were read."""
        order = np.argsort(self.doc, kind="stable")
        starts = np.flatnonzero(np.diff(self.doc[order], prepend=-1))
        index = np.empty(len(order), np.int64)
        index[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
        return index

    @property
    def doc_ids(self) -> list[str]:
        """The id of each document, by its number."""
        return self._documents.names

    @property
    def skipped(self) -> list[Skipped]:
        """Rows that belong to no document."""
        return [Skipped(place, f"rows without doc_id: {count}") for place, count in sorted(self._without_id.items()) if count]

    @property
    def source_names(self) -> list[str]:
        """The name of each source, by its number."""
        return self._sources.names

    doc: np.ndarray
    """int32 [N]: number of each row's document."""

    chunk_index: np.ndarray
    """int64 [N]: where each row stands in its document."""

    source: np.ndarray
    """int32 [N]: number of each row's source."""

    problems: np.ndarray
    """uint8 [N]: what is wrong with each row, a `Problem`."""

    digests: np.ndarray
    """uint64 [N, 2]: of each row's vector."""

    texts: pa.Array | None
    """large_string [N], some of them null; None where no row has a text."""

    vectors: np.ndarray
    """float32 [N, D], mapped from the file."""


@contextmanager
def gather(blocks: Iterable[tuple[RowBlock, str]], recipe: EncoderRecipe, near: Path, in_order: bool) -> Iterator[Gathered]:
    """Read all blocks, each with the name of its collection. The vectors lie in a file without a name on the disk of `near`.

    With `in_order` rows stand in the order of their chunks, and a chunk_index is not read. Raises `InputError` as `Gathered.finish` does.
    """
    folder = next(parent for parent in (near, *near.absolute().parents) if parent.is_dir())
    with explaining_full_disk(near), TemporaryFile(dir=folder) as file:
        gathered = Gathered(file, recipe, in_order)
        for block, default_source in blocks:
            gathered.add(block, default_source)
        gathered.finish()
        yield gathered
