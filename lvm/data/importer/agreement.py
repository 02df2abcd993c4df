"""Whether the declared encoder makes the imported vectors: a few texts are encoded again."""

import numpy as np
import pyarrow as pa

from lvm.config import GateThresholds
from lvm.data.encoders import load_encoder
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError

SAMPLE = 32
"""Texts that are encoded again."""


def check_encoder(texts: pa.ChunkedArray | None, vectors_ND: np.ndarray, rows: np.ndarray, recipe: EncoderRecipe, device: str) -> str:
    """Encode 32 texts with the encoder of `recipe` and compare; returns what was found, or why nothing was compared.

    The text of row i belongs to row `rows[i]` of the vectors. Agreement is the cosine times the ratio of the shorter to the longer norm,
    as in the gate `encoder_contract`, with that gate's threshold for vectors of another precision. Raises `InputError` when the encoder
    of this name has another recipe, or when a vector does not agree.
    """
    if texts is None:
        return "not checked: whether the vectors are those of the recipe, since there are no texts to encode again"
    try:
        encoder = load_encoder(recipe.name, device)
    except InputError as error:
        return f"not checked: whether the vectors are those of the recipe, since its encoder is not at hand ({error})"
    encoder.recipe.require_same(
        recipe, f"the recipe's name is {recipe.name!r}, whose recipe on this machine is another than the declared one"
    )
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), min(SAMPLE, len(rows)), replace=False))
    again = encoder.encode(texts.take(pa.array(chosen)).to_pylist()).astype(np.float64)
    stored = np.asarray(vectors_ND[rows[chosen]], np.float64)
    agreement = (stored * again).sum(1) / np.maximum(np.linalg.norm(stored, axis=1), np.linalg.norm(again, axis=1)) ** 2
    threshold = GateThresholds().encoder_contract_other_dtype
    off = np.flatnonzero(~(agreement >= threshold))
    if len(off):
        first = texts[int(chosen[off[0]])].as_py()
        raise InputError(
            f"{len(off)} of {len(chosen)} texts, encoded again by {recipe.name}, agree with their vectors to less than {threshold} (mean "
            f"{agreement.mean():.4f}; the first is {first[:60]!r}): declare the encoder that made them, or give the texts that it read"
        )
    return f"{len(chosen)} texts, encoded again by {recipe.name}, agree with their vectors to {agreement.min():.5f} or better"
