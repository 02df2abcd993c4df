"""Evaluation windows: which chunks a model has to predict, among which others, and from which contexts.

A window is the row of a target and a context length: the context is the rows before the target in its document. The targets are
chunks of the retrieval pool, a fixed sample of a split, so that every model, baseline and context length answers the same
questions with the same answers on offer.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from lvm.config import EXCLUDED_BEFORE
from lvm.data.dataset import Dataset
from lvm.data.derived import derived_file
from lvm.errors import InputError

# Cosine to a training chunk from which an evaluation chunk counts as a copy of it.
LEAKED_COSINE = 0.995


@dataclass(frozen=True)
class Windows:
    """The queries of one split at one context length, and the pool in which their answers are ranked."""

    pool: np.ndarray
    """int64 [P]: rows of the pool, ascending. No two have the same text."""

    answer: np.ndarray
    """int64 [N]: the position in the pool of each query's answer. The queries are the pool's chunks that have a full context."""

    docs: np.ndarray
    """int64 [N]: number of each query's document."""

    excluded: np.ndarray
    """int64 [N, 2]: for each query, a half-open range of pool positions that are not offered."""

    context_length: int
    """Chunks in each context."""

    dropped: int
    """Chunks of the split that are not in the pool because train holds them too."""

    pool_hash: str
    """SHA-256 over (doc_id, chunk_index) of the pool's chunks."""

    def at_most(self, count: int) -> "Windows":
        """A fixed sample of `count` of the queries, or all there are. The pool stays the same."""
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
        """Expected recall@5 of random guessing."""
        return float(np.mean(np.minimum(1, 5 / (len(self.pool) - np.diff(self.excluded, axis=1)))))


def leaked_rows(dataset: Dataset, split: str, device: torch.device) -> np.ndarray:
    """Rows of `split` of which train holds the text, or nearly the vector; int64, ascending. Cached beside the dataset."""
    rows = dataset.rows(split)
    if split in ("train", "all"):
        return rows[:0]

    def find(file: Path) -> None:
        same_text = np.isin(dataset.text_codes[rows], dataset.text_codes[dataset.rows("train")])
        with file.open("wb") as out:
            np.save(out, rows[same_text | near_copies(dataset.vectors[rows], dataset, device)], allow_pickle=False)

    leaked: np.ndarray = np.load(derived_file(dataset.derived(f"leaked-{split}.npy"), find), allow_pickle=False)
    return leaked


def near_copies(vectors_ND: np.ndarray, dataset: Dataset, device: torch.device) -> np.ndarray:
    """Which of `vectors_ND` are nearly equal to a training vector of `dataset`: bool [N]."""
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

    The pool holds `size` chunks, or all there are, with distinct texts that are not in train. The seed is fixed, so the pool depends on
    neither the model nor the context length. `leave_out` are rows to drop as well, because they are in the training split of another
    dataset. Raises `InputError` when no document is long enough, or when `context_length` is not 1 to 64: the pool leaves out the 64
    chunks before a target, and would offer the others of a longer context as wrong answers.
    """
    if not 1 <= context_length <= EXCLUDED_BEFORE:
        raise InputError(
            f"field 'context_length' is {context_length}: give 1 to {EXCLUDED_BEFORE}, since the retrieval pool leaves out "
            f"the {EXCLUDED_BEFORE} chunks before a target and would offer older ones of its context as wrong answers"
        )
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
    """The contexts of `targets`, in order: batches `context_BTD` of float32 [<= batch, length, D]."""
    yield from contexts_of_rows(vectors, targets[:, None] + np.arange(-length, 0), device, batch)


def contexts_of_rows(vectors: np.ndarray, rows_NT: np.ndarray, device: torch.device, batch: int = 256) -> Iterator[torch.Tensor]:
    """Contexts made of the given rows: batches `context_BTD` of float32 [<= batch, T, D]."""
    for start in range(0, len(rows_NT), batch):
        yield torch.from_numpy(vectors[rows_NT[start : start + batch]]).to(device)


def unit(vectors: np.ndarray, device: torch.device) -> torch.Tensor:
    """Rows scaled to unit length, float32 on `device`."""
    return F.normalize(torch.from_numpy(np.ascontiguousarray(vectors)).to(device), dim=-1)


RANKED_AT_ONCE = 128
"""Queries whose scores are in memory at once: few enough that the scores stay in a processor's cache."""


def retrieval_ranks(query_ND: torch.Tensor, pool_PD: torch.Tensor, answer_N: np.ndarray, excluded_N2: np.ndarray) -> np.ndarray:
    """Rank of each query's answer in the pool, 1 for the best; int64 [N].

    `pool_PD` has unit length; the length of a query does not matter, since it does not reorder the pool. `answer_N` is the position of
    the answer in the pool, `excluded_N2` the half-open range of positions that are not offered to that query. Ties count against
    the query, so that a constant prediction gains nothing.
    """
    widest = int(np.diff(excluded_N2).max(initial=0))
    ranks = []
    for start in range(0, len(query_ND), RANKED_AT_ONCE):
        part = slice(start, start + RANKED_AT_ONCE)
        scores = query_ND[part] @ pool_PD.T
        answer = torch.as_tensor(answer_N[part], device=scores.device)[:, None]
        excluded = torch.as_tensor(excluded_N2[part], device=scores.device)
        own = scores.gather(1, answer)
        # Not `scores >= own`: NaN compares false, so a model that predicts NaN would rank first.
        behind = (scores < own).view(torch.uint8).sum(1, dtype=torch.int32)  # a third faster than to sum truth values
        # The few that are not offered are looked up again: a mask as large as the scores would cost more than the product.
        near = excluded[:, :1] + torch.arange(widest, device=scores.device)
        hidden = (near < excluded[:, 1:]) & (near != answer)
        not_behind = ~(scores.gather(1, near.clamp_max(len(pool_PD) - 1)) < own)
        ranks.append(len(pool_PD) - behind - (not_behind & hidden).sum(1))
    return torch.cat(ranks).cpu().numpy()
