"""Encoder recipes: everything that decides which vector a text gets.

Two recipes of one model are different encoders. vec2text's `gtr-base` is the T5 encoder with mean pooling and nothing after it, while
`SentenceTransformer("gtr-t5-base")` adds a dense layer and unit length. A decoder that was trained on the vectors of one cannot decode
those of the other.
"""

from pydantic import Field

from lvm.atomic_io import digest_json
from lvm.config import Config
from lvm.errors import InputError


class EncoderRecipe(Config):
    """The identity of an encoder. Dtype and device are recorded elsewhere and not compared."""

    name: str
    """The name by which `load_encoder` loads it. It is a label and not compared."""

    weights_sha256: str
    """SHA-256 over all weight files in the order of their paths."""

    pooling: str
    """How the token vectors are combined: mean, cls, max, lasttoken, or several joined by '+'."""

    dense: bool
    """Whether a dense layer follows the pooling."""

    normalize: bool
    """Whether vectors are scaled to unit length."""

    max_tokens: int = Field(gt=0)
    """Tokens that the encoder reads, special tokens included. It truncates longer texts."""

    dim: int = Field(gt=0)
    """Dimension of the vectors."""

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits, the same for two recipes exactly when they are the same encoder."""
        return digest_json(self.model_dump(exclude={"name"}))[:12]

    def require_same(self, other: "EncoderRecipe", what: str) -> None:
        """Raise `InputError` when `other` is another encoder. The message starts with `what` and names the fields that differ."""
        if self.id == other.id:
            return
        mine, theirs = self.model_dump(exclude={"name"}), other.model_dump(exclude={"name"})
        differences = ", ".join(f"{k}: {mine[k]} against {theirs[k]}" for k in mine if mine[k] != theirs[k])
        raise InputError(
            f"{what}: encoder recipe {self.name} ({self.id}) is not {other.name} ({other.id}): {differences}. "
            "Extract the documents again with the recipe that is expected, or train on this dataset."
        )
