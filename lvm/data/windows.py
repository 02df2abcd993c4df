"""Which chunks are scored, and how their contexts are read.

A window is (row of the target, context length): the rows before the target in its document. The
scored targets are the retrieval pool itself: a fixed sample of a split's chunks, so that every
model, baseline and context length answers the same questions among the same answers.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.errors import InputError

# Nearer than this to a training chunk, an evaluation chunk is the training chunk.
LEAKED_COSINE = 0.995


@dataclass(frozen=True)
class Windows:
    """The questions of one split at one context length, and the pool they are asked against."""

    pool: np.ndarray
    """int64 [P]: rows of the pool, ascending; texts distinct."""

    answer: np.ndarray
    """int64 [N]: positions in the pool that have a full context before them: the queries."""

    docs: np.ndarray
    """int64 [N]: document number of each query."""

    excluded: np.ndarray
    """int64 [N, 2]: half-open range of pool positions left out for each query."""

    context_length: int

    dropped: int
    """Chunks of the split left out because they stand in train."""

    pool_hash: str
    """SHA-256 of the pool's (doc_id, chunk_index) keys."""

    def at_most(self, count: int) -> "Windows":
        """A fixed sample of `count` of the queries, or all there are; the pool stays."""
        if len(self.answer) <= count:
            return self
        keep = np.sort(np.random.default_rng(0).choice(len(self.answer), count, replace=False))
        return replace(self, answer=self.answer[keep], docs=self.docs[keep], excluded=self.excluded[keep])

    @property
    def targets(self) -> np.ndarray:
        """int64 [N]: row of each query's answer."""
        return self.pool[self.answer]

    @property
    def chance_at_5(self) -> float:
        """Expected R@5 of random guessing."""
        return float(np.mean(np.minimum(1, 5 / (len(self.pool) - np.diff(self.excluded, axis=1)))))


def leaked_rows(dataset: Dataset, split: str, device: torch.device) -> np.ndarray:
    """Rows of `split` whose text, or nearly whose vector, stands in train; cached beside the dataset."""
    rows = dataset.rows(split)
    if split in ("train", "all"):
        return rows[:0]
    cache = dataset.derived(f"leaked-{split}.npy")
    if cache.exists():
        return np.load(cache, allow_pickle=False)
    from lvm.atomic_io import replacing

    train = dataset.rows("train")
    leaked = np.isin(dataset.text_codes[rows], dataset.text_codes[train]) | near_copies(dataset.vectors[rows], dataset, device)
    with replacing(cache) as temporary, temporary.open("wb") as file:
        np.save(file, rows[leaked], allow_pickle=False)
    return rows[leaked]


def near_copies(vectors_ND: np.ndarray, dataset: Dataset, device: torch.device) -> np.ndarray:
    """Which of `vectors_ND` all but equal a training vector of `dataset`: bool [N]."""
    return nearest_train_cosines(vectors_ND, dataset, device) >= LEAKED_COSINE


def nearest_train_cosines(vectors_ND: np.ndarray, dataset: Dataset, device: torch.device) -> np.ndarray:
    """Cosine of each of `vectors_ND` to the nearest training vector of `dataset`: float32 [N], -inf where it has none."""
    nearest = torch.full((len(vectors_ND),), -torch.inf, device=device)
    queries, train = unit(vectors_ND, device), dataset.rows("train")
    for start in range(0, len(train), 8_192):
        block = unit(dataset.vectors[train[start : start + 8_192]], device)
        for part, found in zip(queries.split(4_096), nearest.split(4_096), strict=True):
            torch.fmax(found, (part @ block.T).nan_to_num_(-torch.inf).amax(1), out=found)
    return nearest.cpu().numpy()


def make_windows(
    dataset: Dataset, split: str, context_length: int, size: int, device: torch.device, leave_out: np.ndarray | None = None
) -> Windows:
    """The evaluation windows of `split` ('train', 'val', 'test', or 'all' of a dataset that nothing was trained on).

    The pool holds `size` chunks, or all there are: distinct texts that do not stand in train, drawn
    with a fixed seed that depends on neither model nor context length. `leave_out` are rows that are
    known to stand in another dataset's train, and are dropped too. Raises `InputError` when no document is long enough.
    """
    rows = dataset.rows(split)
    leaked = leaked_rows(dataset, split, device)
    if leave_out is not None:
        leaked = np.union1d(leaked, leave_out)
    clean = np.setdiff1d(rows, leaked)
    _, first = np.unique(dataset.text_codes[clean], return_index=True)
    distinct = np.sort(clean[first])
    if len(distinct) > size:
        distinct = np.sort(np.random.default_rng(0).choice(distinct, size, replace=False))
    docs = dataset.row_doc[distinct]
    position = distinct - dataset.starts[docs]
    answer = np.flatnonzero(position >= context_length)
    if len(answer) < 2:
        raise InputError(
            f"split '{split}' has no document with more than {context_length} chunks that can be scored: "
            "give more or longer documents, or a smaller context_length"
        )
    targets = distinct[answer]
    oldest = np.maximum(targets - EXCLUDED_BEFORE, dataset.starts[docs[answer]])
    excluded = np.stack([np.searchsorted(distinct, oldest), answer], 1)
    keys = "\n".join(f"{dataset.doc_ids[d]}:{dataset.chunk_index[r]}" for d, r in zip(docs, distinct, strict=True))
    return Windows(distinct, answer, docs[answer], excluded, context_length, len(leaked), hashlib.sha256(keys.encode()).hexdigest())


def contexts(vectors: np.ndarray, targets: np.ndarray, length: int, device: torch.device, batch: int = 256) -> Iterator[torch.Tensor]:
    """The contexts of `targets` in order, in batches: float32 [<= batch, length, D]."""
    yield from chosen(vectors, targets[:, None] + np.arange(-length, 0), device, batch)


def chosen(vectors: np.ndarray, rows_NT: np.ndarray, device: torch.device, batch: int = 256) -> Iterator[torch.Tensor]:
    """Contexts of any rows, in batches: float32 [<= batch, T, D]."""
    for start in range(0, len(rows_NT), batch):
        yield torch.from_numpy(vectors[rows_NT[start : start + batch]]).to(device)


def unit(vectors: np.ndarray, device: torch.device) -> torch.Tensor:
    """Rows scaled to unit length on `device`, float32."""
    return F.normalize(torch.from_numpy(np.ascontiguousarray(vectors)).to(device), dim=-1)


# Chunks before a query in its document that are never offered as answers, in training
# (negatives) and in evaluation (pool): a chunk that the model has just read is not a mistake.
EXCLUDED_BEFORE = 64


def retrieval_ranks(query_ND: torch.Tensor, pool_PD: torch.Tensor, answer_N: np.ndarray, excluded_N2: np.ndarray) -> np.ndarray:
    """Rank of each query's answer among the pool, best first, starting at 1; int64 [N].

    `pool_PD` is unit length (queries need not be: a query's scale does not reorder its pool);
    `answer_N` is the answer's position in the pool; `excluded_N2` is the half-open range of pool
    positions left out for that query. Ties count against the query, so a constant gains nothing.
    """
    position = torch.arange(len(pool_PD), device=pool_PD.device)
    ranks = []
    for start in range(0, len(query_ND), 256):
        part = slice(start, start + 256)
        scores = query_ND[part] @ pool_PD.T
        answer = torch.as_tensor(answer_N[part], device=scores.device)
        excluded = torch.as_tensor(excluded_N2[part], device=scores.device)
        own = scores.gather(1, answer[:, None])
        hidden = (position >= excluded[:, :1]) & (position < excluded[:, 1:])
        # Not `scores >= own`: a NaN is not ahead of itself, and a broken model would rank first.
        ahead = ~(scores < own) & ~hidden & (position != answer[:, None])
        ranks.append(1 + ahead.sum(1))
    return torch.cat(ranks).cpu().numpy()
