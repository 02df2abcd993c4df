"""Which decoder is meant."""

from lvm.encode.encoder import MINILM_WEIGHTS
from lvm.encode.recipe import EncoderRecipe

AUTO, NONE = "auto", "none"

SHIPPED = EncoderRecipe(
    name="minilm", weights_sha256=MINILM_WEIGHTS, pooling="mean", dense=False, normalize=True, max_tokens=256, dim=384
)  # fmt: skip
"""The embedded default encoder, which the shipped decoder `minilm` inverts; known without loading either."""


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
    return f"No decoder for the recipe {recipe.name} ({recipe.id}): lvm train-decoder {dataset} --out decoders/{recipe.name.split(':')[0]}"
