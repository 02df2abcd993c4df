"""Checks of imported vectors: each has a direction, and their lengths are those of the declared recipe."""

import numpy as np

from lvm.data.importer.block import Problem, RowBlock
from lvm.errors import InputError

UNIT_TOLERANCE = 0.01
"""How far from 1 the length of a vector of unit length may be. Rounding to float16 changes it by less than a thousandth."""


class Norms:
    """The lengths of all vectors that were read, against `normalize` of their recipe."""

    def __init__(self, normalize: bool) -> None:
        self._normalize = normalize
        self._count = self._unit = 0
        self._first_other = ""

    def add(self, vectors_ND: np.ndarray, rows: np.ndarray, block: RowBlock) -> np.ndarray:
        """Count the vectors of some `rows` of a block. Returns what is wrong with each: uint8 [n], a `Problem`."""
        norms = np.linalg.norm(vectors_ND.astype(np.float64), axis=1)
        finite = np.isfinite(norms)
        problems = np.where(finite, np.where(norms > 0, Problem.NONE, Problem.ZERO_VECTOR), Problem.NO_VECTOR).astype(np.uint8)
        usable = finite & (norms > 0)
        unit = usable & (np.abs(norms - 1) <= UNIT_TOLERANCE)
        self._count += int(usable.sum())
        self._unit += int(unit.sum())
        if not self._first_other and (usable & ~unit).any():
            first = int(np.flatnonzero(usable & ~unit)[0])
            self._first_other = f"that of {block.place}, row {block.first + rows[first]}, is {norms[first]:.4g} long"
        return problems

    def require(self) -> None:
        """Raise `InputError` when vectors are not of unit length though the recipe normalises, or all are though it does not."""
        other = self._count - self._unit
        if self._normalize and other:
            raise InputError(
                f"recipe field 'normalize' is true, but {other} of {self._count} vectors are not of unit length ({self._first_other}): "
                "declare normalize: false, or give the vectors as the encoder made them"
            )
        if not self._normalize and self._count and not other:
            raise InputError(
                f"recipe field 'normalize' is false, but all {self._count} vectors are of unit length: declare normalize: true, or give "
                "the vectors as they were before they were scaled"
            )
