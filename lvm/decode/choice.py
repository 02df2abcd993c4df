"""Which decoder is meant."""

import re

from lvm.encode.encoder import MINILM_WEIGHTS
from lvm.encode.recipe import EncoderRecipe

AUTO, NONE = "auto", "none"

SHIPPED = EncoderRecipe(
    name="minilm", weights_sha256=MINILM_WEIGHTS, pooling="mean", dense=False, normalize=True, max_tokens=256, dim=384
)  # fmt: skip
"""The embedded default encoder, which the decoder `minilm` of this package inverts; known without loading either."""


def choose_decoder(asked: str, recipe: EncoderRecipe) -> str | None:
    """The decoder's name for vectors of `recipe`, or None when there is none.

    `auto` is the shipped decoder where it inverts `recipe`; `none` is none; any other name is taken
    as it is, and `load_decoder` refuses a wrong one.
    """
    if asked == AUTO:
        return SHIPPED.name if recipe.id == SHIPPED.id else None
    return None if asked == NONE else asked


def without_decoder(asked: str, recipe: EncoderRecipe, dataset: str) -> str:
    """Why nothing is decoded, where `choose_decoder` gives None, and what to do."""
    if asked == NONE:
        return "Nothing is decoded, as asked"
    train = f"lvm train-decoder {dataset} --out decoders/{label(recipe)}"
    none = f"No decoder for the recipe {recipe.name} ({recipe.id}) comes with this package, so nothing is decoded"
    return f"{none}; make one with '{train}' and give its folder as the decoder"


def label(recipe: EncoderRecipe) -> str:
    """A name for files about the encoder: `sentence-transformers:some/model-v1.5` is `model-v1.5`."""
    return re.sub(r"[^\w.-]+", "-", recipe.name.rstrip("/").rpartition(":")[2].rpartition("/")[2]) or "encoder"
