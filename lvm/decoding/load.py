"""Choose a decoder for the vectors of a dataset, load it, and check that it inverts them."""

import re
from dataclasses import dataclass
from pathlib import Path

from lvm.config import GateThresholds
from lvm.data.dataset import NO_TEXTS, Dataset
from lvm.data.encoders import MINILM_WEIGHTS, Encoder
from lvm.data.recipe import EncoderRecipe
from lvm.decoding.gates import encoder_contract
from lvm.decoding.protocol import Decoder
from lvm.gates.result import GateResult

AUTO, NONE = "auto", "none"


SHIPPED = EncoderRecipe(
    name="minilm", weights_sha256=MINILM_WEIGHTS, pooling="mean", dense=False, normalize=True, max_tokens=256, dim=384
)  # fmt: skip
"""Recipe of the default encoder, which the decoder `minilm` of this package inverts. Stated here so that neither has to be loaded."""


@dataclass(frozen=True)
class LoadedDecoder:
    """A decoder, and whether it inverts the vectors of the dataset that it was opened for."""

    name: str
    """As given to `load_decoder`."""

    decoder: Decoder

    contract: GateResult
    """Result of the gate `encoder_contract` on that dataset. The caller decides whether to refuse."""


@dataclass(frozen=True)
class NoDecoder:
    """Nothing is decoded."""

    reason: str
    """Why not, and what to do."""


def open_decoder(
    asked: str, dataset: Dataset, device: str = "cpu", steps: int | None = None, limits: GateThresholds = GateThresholds()
) -> LoadedDecoder | NoDecoder:
    """Choose, load and check the decoder for `dataset`.

    `asked` is `auto`, `none` or the name of a decoder; see `choose_decoder` and `load_decoder`. Raises
    `InputError` when there is no such decoder, when its declared recipe is not the dataset's, or when the dataset has no texts
    to check a named one with.
    """
    name = choose_decoder(asked, dataset.manifest.recipe)
    if name is None:
        return NoDecoder(no_decoder_reason(asked, dataset.manifest.recipe, str(dataset.path)))
    if asked == AUTO and not dataset.has_texts:
        return NoDecoder(f"Nothing is decoded: dataset {dataset.path} {NO_TEXTS}")
    decoder = load_decoder(name, device, steps)
    return LoadedDecoder(name, decoder, encoder_contract(dataset, decoder, limits))


def choose_decoder(asked: str, recipe: EncoderRecipe) -> str | None:
    """Name of the decoder for vectors of `recipe`; None when there is none.

    `auto` chooses the shipped decoder if it inverts `recipe`, and `none` chooses none. Any other name is
    returned unchanged; `load_decoder` refuses one that does not exist.
    """
    if asked == AUTO:
        return SHIPPED.name if recipe.id == SHIPPED.id else None
    return None if asked == NONE else asked


def no_decoder_reason(asked: str, recipe: EncoderRecipe, dataset: str) -> str:
    """Why `choose_decoder` chose no decoder, and the command that trains one on `dataset`."""
    if asked == NONE:
        return "Nothing is decoded, as asked"
    train = f"lvm train-decoder {dataset} --out decoders/{recipe_folder(recipe)}"
    none = f"No decoder for the recipe {recipe.name} ({recipe.id}) comes with this package, so nothing is decoded"
    return f"{none}; train one with '{train}' and give its folder as the decoder"


def recipe_folder(recipe: EncoderRecipe) -> str:
    """A folder name for the encoder: `sentence-transformers:some/model-v1.5` becomes `model-v1.5`."""
    return re.sub(r"[^\w.-]+", "-", recipe.name.partition("?")[0].rstrip("/").rpartition(":")[2].rpartition("/")[2]) or "encoder"


def load_decoder(name: str | Path, device: str = "cpu", steps: int | None = None, encoder: Encoder | None = None) -> Decoder:
    """Load a decoder by its name.

    `name` is `minilm` (shipped with this package), a folder written by `lvm train-decoder`, or
    `vec2text:<name or folder>` (needs the optional library; `vec2text:gtr-base` is the published GTR pair).
    `steps` is the maximum number of corrections; None means the decoder's default. `encoder` is used if its
    recipe is the decoder's; if None, the encoder is loaded. Raises `InputError` when the decoder does not
    exist or was altered, or when `encoder` has another recipe.
    """
    if str(name).startswith("vec2text:"):
        from lvm.decoding.vec2text.decoder import Vec2TextDecoder

        return Vec2TextDecoder(str(name).partition(":")[2], device, steps, encoder)
    from lvm.decoding.inverter.decoder import Inverter, shipped

    return Inverter.load(shipped("minilm") if str(name) == "minilm" else Path(name), device, steps, encoder)
