"""Settings of extraction: how documents are cut and divided; and how far a context may reach."""

from typing import Any

from pydantic import Field

from lvm.config.base import Config

# Chunks before a target in its document that are never offered as wrong answers, in training (negatives) or in evaluation (pool):
# the model has just read them, so finding them similar is no mistake. It bounds `context_length`: a longer context would hold chunks
# that the pool offers as wrong answers.
EXCLUDED_BEFORE = 64


FEWEST_TOKENS = 8
"""Smallest budget of a chunk."""


class ChunkerConfig(Config):
    """How text becomes chunks."""

    max_tokens: int = Field(64, ge=FEWEST_TOKENS, le=512)
    """Most tokens of a chunk, counted by the encoder's tokenizer without special tokens. vec2text's GTR pair needs 32."""

    language: str = Field("en", pattern="^[a-z]{2,3}$")
    """Language of the sentence splitter, as an ISO 639 code. English rules are used for a language that it has none for."""


class SplitConfig(Config):
    """How documents are divided."""

    val: float = Field(0.1, gt=0, lt=0.5)
    """Share of document groups for validation. All choices are made on them."""

    test: float = Field(0.1, gt=0, lt=0.5)
    """Share of document groups for testing. They are only reported on."""

    min_shared: float = Field(0.2, gt=0, le=1)
    """Documents that share at least this much of their texts form one group, which stays in one split."""

    salt: str = Field("", coerce_numbers_to_str=True)
    """Any text. Another salt divides the same documents anew, which gives other test documents."""

    def identity(self) -> dict[str, Any]:
        """The fields as a dataset's key contains them: without an empty salt, so that datasets from before there was one keep theirs."""
        return self.model_dump(exclude=set() if self.salt else {"salt"})
