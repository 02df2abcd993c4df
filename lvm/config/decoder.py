"""Settings of the inverter, the project's own decoder, and of its training."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from lvm.config.base import Config


class InverterConfig(Config):
    """The network: one T5 that makes the first hypothesis and corrects it."""

    width: int = Field(512, ge=64, multiple_of=64)
    """Width of the T5; it has a head for every 64."""

    feed_forward: int = Field(768, ge=64)
    """Width of its gated feed-forward layers."""

    encoder_layers: int = Field(3, ge=1, le=24)
    """Depth of the encoder, which reads the vector and the hypothesis."""

    decoder_layers: int = Field(3, ge=1, le=24)
    """Depth of the decoder, which writes the text."""

    prefix: int = Field(8, ge=1, le=64)
    """Tokens that the target vector becomes; the hypothesis' vector and the difference become half as many each."""

    vocabulary: int = Field(7_680, ge=300, le=65_535)
    """Entries of the tokenizer that is trained on the corpus."""

    max_tokens: int = Field(96, ge=8, le=512)
    """Longest text that is learned and written, in this tokenizer's tokens; what is longer is cut there."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout within the T5."""


class DecoderTrainConfig(Config):
    """One training of an inverter. It goes in rounds: draw texts, embed them, learn from them."""

    model: InverterConfig = InverterConfig()
    """The network."""

    rounds: int = Field(20, ge=1)
    """How often texts are drawn."""

    texts: int = Field(100_000, ge=64)
    """Texts drawn in a round."""

    passes: int = Field(3, ge=1)
    """How often a round's texts are learned from before others are drawn."""

    spans: float = Field(0.3, ge=0, le=1)
    """Share of the texts that are a random stretch of a chunk's words instead of the whole chunk."""

    splices: float = Field(0.4, ge=0, le=1)
    """Share of the texts that are the beginning of one chunk and the end of another."""

    favour: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    """By source: how many times as often as the others' its chunks are drawn."""

    noise: float = Field(0.2, ge=0)
    """Greatest length of the Gaussian noise that a vector gets, relative to its own; the length is drawn anew each time."""

    correct_from: float = Field(0.4, ge=0, le=1)
    """Share of the rounds after which hypotheses are made and corrected too."""

    corrections: float = Field(0.5, ge=0, le=1)
    """From then on, share of a round's batches that correct a hypothesis; the others write from nothing."""

    batch: int = Field(256, ge=1)
    """Texts in a batch, over all devices."""

    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate."""

    warmup: float = Field(0.02, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0; a cosine to 0 follows."""

    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay, on matrices only."""

    clip: float = Field(1.0, gt=0)
    """Global gradient norm above which gradients are scaled down."""

    seed: int = 0
    """Seed of initialisation, texts, noise and dropout."""

    @model_validator(mode="after")
    def _shares_are_of_one_whole(self) -> Self:
        if self.spans + self.splices > 1:
            raise ValueError(f"spans ({self.spans:g}) and splices ({self.splices:g}) are shares of the same texts: give 1 or less together")
        return self
