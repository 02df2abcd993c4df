"""How many texts an encoder takes at once, and in which order."""

from collections.abc import Iterator, Sequence

import numpy as np


def batch_size(device: str) -> int:
    """Texts in a batch: what fits into a CPU's cache, or keeps an accelerator busy."""
    return 32 if device == "cpu" else 2_048


def group_size(device: str) -> int:
    """Texts to hand over at once: many batches, so that sorting them by length pays."""
    return 32 * batch_size(device)


def batches_by_length(lengths: Sequence[int], size: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of at most `size`, int64, the longest first: texts of like length need little padding."""
    order = np.argsort([-length for length in lengths], kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
