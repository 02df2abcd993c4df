"""What a decoder is: it turns vectors of one encoder recipe into text."""

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
    """Cosine between the vector that was decoded and the embedding of the text by the real encoder."""

    steps: int
    """Number of corrections after which this text was found; 0 for the first hypothesis."""


class Decoder(Protocol):
    """Turns vectors of one encoder recipe back into text."""

    recipe: EncoderRecipe
    """Recipe of the encoder that it inverts."""

    encoder: Encoder
    """That encoder; it embeds every hypothesis again."""

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        """Decode float32 [n, dim], in the raw distribution of the recipe.

        Raises `InputError` when the dimension is another, or a vector is zero, NaN or infinite.
        """
        ...


def require_vectors(vectors: np.ndarray, recipe: EncoderRecipe) -> np.ndarray:
    """`vectors` as contiguous float32 [n, dim]; raises `InputError` when they cannot be vectors of `recipe`."""
    if vectors.ndim != 2 or vectors.shape[1] != recipe.dim:
        raise InputError(f"vectors of shape {list(vectors.shape)}: expected [n, {recipe.dim}], the dimension of {recipe.name}")
    checked = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = unusable_rows(checked)
    if len(bad):
        raise InputError(f"vectors {bad[:5].tolist()} of {len(checked)} are zero, NaN or infinite: encode their texts again")
    return checked
