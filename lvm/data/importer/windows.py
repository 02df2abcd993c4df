"""Overlapping windows, as older pipelines stored them, put back into documents.

Such an archive holds `context_sequences` [N, T, D], `target_vectors` [N, D] and `doc_ids` [N]: each chunk as often as there are windows
that hold it. What the windows do not say cannot be known: the texts, the chunks of documents that are shorter than a window, and whether
the first chunk of a document's first window is the first one of the document.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from lvm.data.importer.arrays import Archive
from lvm.data.importer.block import BLOCK_ROWS, Problem, RowBlock, strings
from lvm.data.vectors import vector_digests
from lvm.errors import InputError

CONTEXTS, TARGETS, IDS = "context_sequences", "target_vectors", "doc_ids"
REMARK = (
    "windows were put back into documents. What they do not say is not known: texts, documents shorter than a window, and whether a "
    "document's first window is its beginning"
)


def holds_windows(archive: Archive) -> bool:
    """Whether an archive is one of overlapping windows."""
    return CONTEXTS in archive.names


def window_blocks(archive: Archive, dim: int) -> Iterator[RowBlock]:
    """The chunks of the windows, each once.

    Windows of a document stand in reading order; those of several documents may be mixed. A window continues the one before it in its
    document when it begins with chunks, bit for bit, that the other ends with. A document with a window that does not is marked.
    Zeros before the first chunk of a document's first window are padding. Raises `InputError` for arrays of other shapes.
    """
    length, doc_ids = _require_shapes(archive, dim)
    rows = max(BLOCK_ROWS // (length + 1), 1)
    documents: dict[str, _Document] = {}
    parts = zip(archive.blocks(CONTEXTS, rows), archive.blocks(TARGETS, rows), strict=True)
    for start, (contexts, targets) in zip(range(0, len(doc_ids), rows), parts, strict=True):
        windows = np.concatenate([contexts, targets[:, None]], 1)
        digests = vector_digests(windows.reshape(-1, dim)).reshape(len(windows), length + 1, 2)
        zero = np.asarray(~windows.any(-1))
        ids: list[str] = []
        index: list[int] = []
        torn: list[Problem] = []
        new: list[np.ndarray] = []
        for i, doc_id in enumerate(doc_ids[start : start + len(windows)]):
            document = documents.setdefault(doc_id, _Document())
            first = document.continued(digests[i], zero[i])
            new.append(windows[i, first or 0 :])
            count = len(new[-1])
            ids += [doc_id] * count
            index += range(document.chunks, document.chunks + count)
            torn += [Problem.TORN_WINDOW if first is None else Problem.NONE] * count
            document.chunks += count
        yield RowBlock(
            place=str(archive.path),
            first=start + 1,
            vectors=np.concatenate(new),
            doc_ids=pa.array(ids, pa.string()),
            chunk_index=pa.array(index, pa.int64()),
            texts=None,
            sources=None,
            problems=np.array(torn, np.uint8),
        )


class _Document:
    """What was read of one document: its chunks so far, and its last window."""

    def __init__(self) -> None:
        self.chunks = 0
        self._last: np.ndarray | None = None

    def continued(self, digests: np.ndarray, zero: np.ndarray) -> int | None:
        """The first place in the next window, digests [T + 1, 2], that holds a new chunk; None when it does not continue the last one."""
        last, self._last = self._last, digests
        size = len(digests)
        if last is None:
            return 0 if zero.all() else int(np.argmin(zero))
        for step in range(size):
            if np.array_equal(last[step:], digests[: size - step]):
                return size - step
        return None


def _require_shapes(archive: Archive, dim: int) -> tuple[int, list[str]]:
    """T, and the document of each window; `InputError` when an array is missing or has another shape."""
    for name in (TARGETS, IDS):
        if name not in archive.names:
            raise InputError(f"{archive.path} has {CONTEXTS}, but no array {name!r}; there are {', '.join(archive.names)}: add it")
    contexts, targets = archive.shape(CONTEXTS), archive.shape(TARGETS)
    ids = archive.whole(IDS)
    count, length = (contexts[0], contexts[1]) if len(contexts) == 3 else (0, 0)
    if contexts != (count, length, dim) or targets != (count, dim) or ids.shape != (count,) or not length:
        raise InputError(
            f"{archive.path}: {CONTEXTS} is of shape {contexts}, {TARGETS} of {targets}, {IDS} of {ids.shape}; expected [N, T, {dim}], "
            f"[N, {dim}] and [N], where {dim} is the recipe's dim"
        )
    column = strings(pa.array(ids), f"{archive.path}, array {IDS!r}", 1, integers=True)
    if column.null_count:
        raise InputError(f"{archive.path}, array {IDS!r}: {column.null_count} windows have no doc_id: give each one")
    return length, column.to_pylist()
