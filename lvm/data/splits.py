"""Documents to train, val and test, before any window exists.

Near-duplicate documents must fall on the same side, so groups are split, not documents; and a
group's side follows from a hash of its first document's id, so that it stays where it is when
the corpus grows.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from lvm.config import SplitConfig

# A text that stands in more documents than this is boilerplate; pairing its documents with each
# other would cost the square of their number and says nothing about their being copies.
BOILERPLATE_DOCUMENTS = 1000


def duplicate_groups(text_hashes: Sequence[np.ndarray], min_shared: float) -> np.ndarray:
    """Group documents that share many of their chunk texts.

    `text_hashes[i]`: uint64 hashes of document i's chunk texts. Two documents are linked when
    they share at least `min_shared` of the smaller one's distinct texts; groups are the
    connected components. Returns group numbers, int [n_docs].
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

    A group's position in [0, 1) is a hash of its smallest doc_id; [0, test) is test, the next
    `val` is val, the rest train. In a corpus so small that a split would stay empty, it gets the
    group nearest to its range out of the fullest split (three groups are needed).
    """
    first: dict[int, str] = {}
    for doc_id, group in zip(doc_ids, groups.tolist(), strict=True):
        first[group] = min(first.get(group, doc_id), doc_id)
    position = {group: _position(doc_id) for group, doc_id in first.items()}
    bounds = {"train": (config.test + config.val, 1.0), "test": (0.0, config.test), "val": (config.test, config.test + config.val)}
    side = {g: "test" if u < config.test else "val" if u < config.test + config.val else "train" for g, u in position.items()}
    for split, (low, high) in bounds.items():
        if split not in side.values() and len(side) >= 3:
            groups_in = Counter(side.values())
            fullest = max(bounds, key=groups_in.__getitem__)
            spare = [g for g in side if side[g] == fullest]
            side[min(spare, key=lambda g: max(low - position[g], position[g] - high))] = split
    return [side[group] for group in groups.tolist()]


def _position(doc_id: str) -> float:
    """A uniform number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.sha256(doc_id.encode()).digest()[:7], "big") / 2**56
