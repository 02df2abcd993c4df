"""Encoder recipes: everything that decides which vector a text gets.

Two recipes of one model are different encoders. vec2text's `gtr-base` is the T5 encoder with mean pooling and nothing after it, while
`SentenceTransformer("gtr-t5-base")` adds a dense layer and unit length. A decoder that was trained on the vectors of one cannot decode
those of the other.
"""

import math
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from lvm.atomic_io import digest_json
from lvm.config import Config
from lvm.errors import InputError

LATER = ("prompt", "modules", "golden")
"""Fields that recipes of older versions lack. Where they are empty they are not written: a recipe's bytes and id stay as they were."""

NOT_IN_ID = {"name", "golden"}
"""Fields that are not compared digit by digit."""

GOLDEN_AGREEMENT = 0.99
"""Least agreement of two encoders' golden values; see `agreement`. As of the gate `encoder_contract` for other dtypes, since nothing
says in which precision a server computes: MiniLM in bfloat16 agrees with itself in float32 to .9993."""


class EncoderRecipe(Config):
    """The identity of an encoder. Dtype and device are recorded elsewhere and not compared."""

    name: str
    """The name by which `load_encoder` loads it. It is a label and not compared."""

    weights_sha256: str
    """SHA-256 over all weight files in the order of their paths. An endpoint shows no weights: there, over the model's name."""

    pooling: str
    """How the token vectors are combined: mean, cls, max, lasttoken, or several joined by '+'; `static`, the mean of vectors that
    tokens have without their context; or `endpoint`, where a server decides."""

    dense: bool
    """Whether a dense layer follows the pooling."""

    normalize: bool
    """Whether vectors are scaled to unit length."""

    max_tokens: int = Field(gt=0)
    """Tokens that the encoder reads, special tokens and the prompt included. It truncates longer texts."""

    dim: int = Field(gt=0)
    """Dimension of the vectors."""

    prompt: str = ""
    """Text that is put before every text, as `query: `. Left out of the id where it is empty."""

    modules: str = ""
    """The modules in their order, where pooling, dense and normalize do not describe them. Left out of the id where it is empty."""

    golden: tuple[float, ...] = ()
    """For an endpoint, the first coordinates of its vectors of fixed texts. Compared by `agreement`, and no part of the id: a
    server does not give the same digits twice."""

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields without those of `LATER` that are empty."""
        return {key: value for key, value in handler(self).items() if value or key not in LATER}

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits, the same for two recipes exactly when they are the same encoder."""
        return digest_json(self.model_dump(exclude=NOT_IN_ID))[:12]

    def require_same(self, other: "EncoderRecipe", what: str) -> None:
        """Raise `InputError` when `other` is another encoder. The message starts with `what` and names the fields that differ."""
        if self.id != other.id:
            pairs = [(field, getattr(self, field), getattr(other, field)) for field in EncoderRecipe.model_fields if field not in NOT_IN_ID]
            differences = ", ".join(f"{field}: {_shown(mine)} against {_shown(theirs)}" for field, mine, theirs in pairs if mine != theirs)
            raise InputError(
                f"{what}: encoder recipe {self.name} ({self.id}) is not {other.name} ({other.id}): {differences}. "
                "Extract the documents again with the recipe that is expected, or train on this dataset."
            )
        if self.golden and other.golden and not agreement(self.golden, other.golden) >= GOLDEN_AGREEMENT:
            raise InputError(
                f"{what}: {other.name} gives other vectors than {self.name} did: texts that are always sent first agree to "
                f"{agreement(self.golden, other.golden):.4f}, at least {GOLDEN_AGREEMENT} is needed. "
                "Serve the model of then again, or extract the documents again."
            )


def _shown(value: object) -> object:
    """The value as a message shows it: a text that is empty or ends in a blank in quotes."""
    return value if str(value).strip() == str(value) != "" else repr(value)


def agreement(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The cosine of two lists of numbers, times the ratio of the shorter to the longer norm; -1 where one is longer than the other.

    1 for equal vectors. A cosine alone would miss that only one side scales to unit length.
    """
    longer = max(math.hypot(*a), math.hypot(*b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / longer**2 if len(a) == len(b) and longer else -1.0
