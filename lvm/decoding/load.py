"""Which decoder is meant, and loading it."""

import re
from pathlib import Path

from lvm.data.encoders import MINILM_WEIGHTS, Encoder
from lvm.data.recipe import EncoderRecipe
from lvm.decoding.protocol import Decoder

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


def load_decoder(name: str | Path, device: str = "cpu", steps: int | None = None, encoder: Encoder | None = None) -> Decoder:
    """Load a decoder by its name.

    `name` is `minilm` (the one shipped with this package), a folder that `lvm train-decoder`
    wrote, or `vec2text:<name or folder>` (the optional library: `vec2text:gtr-base` for the
    published GTR pair). `steps` are the corrections at most, the decoder's own default when None.
    `encoder` is used where it is of the decoder's recipe, which is else loaded. Raises `InputError`
    when there is no such decoder, when it was altered, or when `encoder` is of another recipe.
    """
    if str(name).startswith("vec2text:"):
        from lvm.decoding.vec2text.decoder import Vec2TextDecoder

        return Vec2TextDecoder(str(name).partition(":")[2], device, steps, encoder)
    from lvm.decoding.inverter.inverter import Inverter, shipped

    return Inverter.load(shipped("minilm") if str(name) == "minilm" else Path(name), device, steps, encoder)
