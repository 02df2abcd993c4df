"""A decoder's encoder and texts with one fault each, for the gates to find."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.arms import Arms
from tests.support.lookup_decoder import ConstantDecoder


class Posing:
    """An encoder under another's recipe: what it declares is not what it does."""

    def __init__(self, declared: Encoder, real: Encoder | None = None) -> None:
        self.recipe, self.tokenizer, self.dtype, self.group = declared.recipe, declared.tokenizer, declared.dtype, declared.group
        self._real = real

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        assert self._real is not None, "embedded, and should have been refused before"
        return self._real.encode(texts)


def spoilt(arms: Arms, arm: str, encoder: Encoder, dataset: Dataset) -> Arms:
    """The arms with another text in place of one arm's, its round trip measured."""
    vectors = encoder.encode([window.truth for window in arms.windows])
    return replace(arms, decoded={**arms.decoded, arm: ConstantDecoder(encoder).decode(vectors)})
