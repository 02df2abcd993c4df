"""Documents to train, val and test, before any window exists.

Near-duplicate documents must be in the same split, so groups of documents are assigned to splits, not single documents. A hash of
the group's first document id decides, so that a group stays in its split when the corpus grows. Another salt gives another hash.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from lvm.config import SplitConfig

# A text that occurs in more documents than this is boilerplate. It does not show that its documents are copies, and comparing them
# with each other would cost the square of their number.
BOILERPLATE_DOCUMENTS = 1000


def duplicate_groups(text_hashes: Sequence[np.ndarray], min_shared: float) -> np.ndarray:
    """Group documents that share many of their chunk texts. Returns group numbers, int [n_docs].

    `text_hashes[i]` are uint64 hashes of the chunk texts of document i. Two documents are linked when they share at least
    `min_shared` of the distinct texts of the smaller one. The groups are the connected components.
    """
    distinct = [np.unique(hashes) for hashes in text_hashes]
    sizes = np.array([len(d) for d in distinct])
    rows = np.repeat(np.arange(len(distinct)), sizes)
    _, columns, counts = np.unique(np.concatenate(distinct), return_inverse=True, return_counts=True)
    keep = (counts[columns] > 1) & (counts[columns] <= BOILERPLATE_DOCUMENTS)
    shape = (len(distinct), len(counts))
    holds = csr_matrix((np.ones(int(keep.sum()), np.int32), (rows[keep], columns[keep])), shape=shape)
    shared = (holds @ holds.T).tocoo()
    linked = shared.data >= min_shared * np.minimum(sizes[shared.row], sizes[shared.col])
    links = csr_matrix((np.ones(int(linked.sum())), (shared.row[linked], shared.col[linked])), shape=(len(sizes),) * 2)
    return connected_components(links, directed=False)[1]


def assign_splits(doc_ids: Sequence[str], groups: np.ndarray, config: SplitConfig) -> list[str]:
    """The split of each document: 'train', 'val' or 'test'.

    The position of a group in [0, 1) is a hash of its smallest doc_id and `config.salt`. Positions below `config.test` are test, the
    next `config.val` are val, the rest train. Where a corpus of at least three groups is so small that a split would be empty, the
    split gets, of the groups of the fullest split, the one nearest to its range.
    """
    first: dict[int, str] = {}
    for doc_id, group in zip(doc_ids, groups.tolist(), strict=True):
        first[group] = min(first.get(group, doc_id), doc_id)
    position = {group: _position(doc_id, config.salt) for group, doc_id in first.items()}
    bounds = {"train": (config.test + config.val, 1.0), "test": (0.0, config.test), "val": (config.test, config.test + config.val)}
    side = {g: "test" if u < config.test else "val" if u < config.test + config.val else "train" for g, u in position.items()}
    for split, (low, high) in bounds.items():
        if split not in side.values() and len(side) >= 3:
            groups_in = Counter(side.values())
            fullest = max(bounds, key=groups_in.__getitem__)
            spare = [g for g in side if side[g] == fullest]
            side[min(spare, key=lambda g: max(low - position[g], position[g] - high))] = split
    return [side[group] for group in groups.tolist()]


def _position(doc_id: str, salt: str) -> float:
    """A number in [0, 1), uniform over ids, that depends only on the id and the salt."""
    salted = f"{salt}\0{doc_id}" if salt else doc_id
    return int.from_bytes(hashlib.sha256(salted.encode()).digest()[:7], "big") / 2**56
