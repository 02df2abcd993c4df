"""Vectors to text: the seam that a decoder fills.

A decoder declares the encoder recipe that it inverts; `EncoderRecipe.require_same` refuses any
other before work begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lvm.encode.recipe import EncoderRecipe


@dataclass(frozen=True)
class Decoded:
    """One decoded vector."""

    text: str

    roundtrip_cosine: float
    """Cosine of the text's own embedding to the vector that was decoded."""

    steps: int
    """Correction steps that were taken."""


class Decoder(Protocol):
    """Turns vectors of one encoder recipe back into text."""

    recipe: EncoderRecipe

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        """Decode float32 [n, dim], in the recipe's raw distribution."""
        ...
