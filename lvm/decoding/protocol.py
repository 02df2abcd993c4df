"""What a decoder is: vectors of one encoder recipe to text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lvm.data.encoders import Encoder
from lvm.data.recipe import EncoderRecipe
from lvm.data.vectors import unusable_rows
from lvm.errors import InputError


@dataclass(frozen=True)
class Decoded:
    """One decoded vector."""

    text: str

    roundtrip_cosine: float
    """Cosine of the text's own embedding, by the real encoder, to the vector that was decoded."""

    steps: int
    """Correction steps that were taken until this text was found; 0 is the first hypothesis."""


class Decoder(Protocol):
    """Turns vectors of one encoder recipe back into text."""

    recipe: EncoderRecipe
    """The encoder that this decoder was trained on."""

    encoder: Encoder
    """That encoder itself: it re-embeds every hypothesis."""

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        """Decode float32 [n, dim], in the recipe's raw distribution.

        Raises `InputError` when a vector is of another dimension, zero, NaN or infinite.
        """
        ...


def require_vectors(vectors: np.ndarray, recipe: EncoderRecipe) -> np.ndarray:
    """`vectors` as contiguous float32 [n, dim]; `InputError` when they cannot be vectors of `recipe`."""
    if vectors.ndim != 2 or vectors.shape[1] != recipe.dim:
        raise InputError(f"vectors of shape {list(vectors.shape)}: expected [n, {recipe.dim}], the dimension of {recipe.name}")
    checked = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = unusable_rows(checked)
    if len(bad):
        raise InputError(f"vectors {bad[:5].tolist()} of {len(checked)} are zero, NaN or infinite: encode their texts again")
    return checked
