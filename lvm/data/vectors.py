"""Checks on vectors that hold for every stage."""

import hashlib

import numpy as np

BLOCK_ROWS = 8_192


def unusable_rows(vectors_ND: np.ndarray) -> np.ndarray:
    """Rows of `vectors_ND` that are zero, or hold NaN or infinity: int64, ascending.

    Such a vector has no direction: every cosine with it is NaN. Works a block at a time, so that vectors mapped from a
    file are never all in memory.
    """
    found = [np.empty(0, np.int64)]
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        norms = np.linalg.norm(vectors_ND[start : start + BLOCK_ROWS], axis=1)
        found.append(start + np.flatnonzero(~np.isfinite(norms) | (norms == 0)))
    return np.concatenate(found)


def vector_digests(vectors_ND: np.ndarray) -> np.ndarray:
    """A digest of the bytes of each row, uint64 [N, 2]: the same exactly for equal vectors."""
    digests = bytearray()
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        block = np.ascontiguousarray(vectors_ND[start : start + BLOCK_ROWS])
        size, data = block.itemsize * block.shape[1], block.tobytes()
        digests += b"".join(hashlib.blake2b(data[at : at + size], digest_size=16).digest() for at in range(0, len(data), size))
    return np.frombuffer(digests, "<u8").reshape(-1, 2)
