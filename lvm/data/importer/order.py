"""The rows of an import in the order of a dataset, and the documents that cannot be used."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from lvm.data.importer.block import Problem
from lvm.data.importer.gathered import Gathered
from lvm.data.sources import Skipped
from lvm.errors import InputError

MOST_LEFT_OUT = 0.5
"""Share of the documents above which leaving them out is an error."""


@dataclass(frozen=True)
class Ordered:
    """The rows that become chunks."""

    rows: np.ndarray
    """int64 [n_chunks]: which row each chunk was, sorted by (doc_id, chunk_index)."""

    doc_ids: list[str]
    """Ids of the documents that are used, sorted."""

    starts: np.ndarray
    """int64 [n_docs + 1]: the first chunk of each document, and the number of chunks."""

    skipped: list[Skipped]
    """Documents that were left out, and repeated rows."""


def order_rows(gathered: Gathered, keep_going: bool = False) -> Ordered:
    """Sort the rows, whatever order they were read in, and leave out the documents that are not whole.

    A document is left out when one of its chunks cannot be used or is missing, or when it has only one: what is left would put chunks
    side by side that are not neighbours. Raises `InputError` when one (doc_id, chunk_index) stands for two different chunks, when no
    document can be used, and, unless told to `keep_going`, when more than half are left out.
    """
    by_id = sorted(range(len(gathered.doc_ids)), key=gathered.doc_ids.__getitem__)
    rank = np.empty(len(by_id), np.int64)
    rank[by_id] = np.arange(len(by_id))
    order = np.lexsort((gathered.problems, gathered.chunk_index, rank[gathered.doc]))
    docs = rank[gathered.doc[order]]
    reasons: dict[int, str] = {}
    for at in np.flatnonzero(gathered.problems[order]).tolist():
        problem = Problem(int(gathered.problems[order[at]]))
        place = "" if problem is Problem.NO_CHUNK_INDEX else f": chunk_index {gathered.chunk_index[order[at]]}"
        reasons.setdefault(int(docs[at]), f"{problem.reason}{place}")
    usable = ~np.isin(docs, list(reasons))
    order, docs = order[usable], docs[usable]
    order, docs, repeated = _each_once(gathered, order, docs)
    index = gathered.chunk_index[order]
    gaps = np.flatnonzero((np.diff(docs) == 0) & (np.diff(index) != 1))
    for at in gaps[::-1].tolist():  # the first gap of a document is named
        reasons[int(docs[at])] = _gap(int(index[at]), int(index[at + 1]))
    counts = np.bincount(docs, minlength=len(by_id))
    for doc in np.flatnonzero(counts == 1).tolist():
        reasons.setdefault(doc, "one chunk: nothing to predict")
    _require_most(reasons, len(by_id), keep_going)
    kept = ~np.isin(docs, list(reasons))
    lengths = np.bincount(docs[kept], minlength=len(by_id))
    names = [gathered.doc_ids[doc] for doc in by_id]
    skipped = [Skipped(names[doc], reason) for doc, reason in sorted(reasons.items())]
    skipped += [
        Skipped(names[doc], f"rows that occur again, of which one is kept: {times}")
        for doc, times in sorted(repeated.items())
        if doc not in reasons
    ]
    used = np.flatnonzero(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths[used])])
    return Ordered(order[kept], [names[doc] for doc in used.tolist()], starts, skipped)


def _each_once(gathered: Gathered, order: np.ndarray, docs: np.ndarray) -> tuple[np.ndarray, np.ndarray, Counter[int]]:
    """The sorted rows and their documents without rows that occur again, and how many did in each document."""
    index = gathered.chunk_index[order]
    again = np.flatnonzero((np.diff(docs) == 0) & (np.diff(index) == 0)) + 1
    one, two = order[again], order[again - 1]
    same = (gathered.digests[one] == gathered.digests[two]).all(1) & (gathered.source[one] == gathered.source[two])
    if gathered.texts is not None and len(again):
        same &= pc.equal(gathered.texts.take(one), gathered.texts.take(two)).to_numpy(zero_copy_only=False)
    if not same.all():
        at = int(again[np.flatnonzero(~same)[0]])
        raise InputError(
            f"doc_id {gathered.doc_ids[gathered.doc[order[at]]]!r}, chunk_index {index[at]} stands for two different chunks: give each "
            "document its own doc_id, and each of its chunks its own chunk_index"
        )
    return np.delete(order, again), np.delete(docs, again), Counter(docs[again].tolist())


def _require_most(reasons: dict[int, str], documents: int, keep_going: bool) -> None:
    """Raise `InputError` when no document is left, or too few are."""
    if not reasons or ((len(reasons) <= MOST_LEFT_OUT * documents or keep_going) and len(reasons) < documents):
        return
    common, times = Counter(_kind(reason) for reason in reasons.values()).most_common(1)[0]
    example = next(reason for reason in reasons.values() if _kind(reason) == common)
    remedy = "mend the input" if len(reasons) == documents else "mend the input, or give --keep-going to use the others"
    if common == _kind(_gap(0, 0)):
        remedy += "; where the column does not count chunks, sort the rows and give --in-order"
    raise InputError(f"{len(reasons)} of {documents} documents cannot be used, {times} of them for one reason: {example}; {remedy}")


def _gap(before: int, after: int) -> str:
    """Why a document is left out where chunks are missing."""
    return f"missing chunks: between chunk_index {before} and {after}"


def _kind(reason: str) -> str:
    """What two reasons have in common."""
    return reason.partition(":")[0]
