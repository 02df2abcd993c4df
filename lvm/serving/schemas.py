"""Requests and answers as OpenAPI shows them, and as the text endpoints check them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TEXTS = 64
MAX_CHARACTERS = 8_000
MAX_STEPS = 8
MAX_NEIGHBOURS = 50

SENTENCES = [
    "The state of the Union depends on the condition of its finances.",
    "Revenue has grown for the third year, and the public debt has been reduced.",
    "Our trade with other nations was never larger than it is today.",
    "New treaties of commerce have been signed with several of them.",
    "They open ports that were closed to our ships.",
]

Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Vector = Annotated[list[Number], Field(min_length=1)]
Context = Annotated[list[Vector], Field(min_length=1)]


class Body(BaseModel):
    """Base of all requests: an unknown field is an error, and so is a number in place of a text."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class PredictRequest(Body):
    """Contexts to predict from."""

    context_vectors: Context | Annotated[list[Context], Field(min_length=1)]
    """Embeddings of the last chunks, the oldest first: [T, D], or a batch of them [B, T, D]."""

    output_type: Literal["decoder", "cosine", "both"] = "decoder"
    """decoder: in the encoder's raw distribution, for a decoder of text. cosine: unit length, for retrieval."""

    model: str | None = None
    """One of the models in /info; the champion by default."""


class PredictTextRequest(Body):
    """A text to go on from."""

    context: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    """Sentences or short passages, the oldest first."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1
    """Chunks to predict; each goes on from the text of the one before."""

    decode: bool = False
    """Put each prediction into words."""

    neighbours: Annotated[int, Field(ge=0, le=MAX_NEIGHBOURS)] = 0
    """Nearest real chunks to show for each prediction."""

    model: str | None = None
    """One of the models in /info; the champion by default."""


class EncodeRequest(Body):
    """Texts to embed."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class DecodeRequest(Body):
    """Vectors to put into words."""

    vectors: Annotated[list[Vector], Field(min_length=1, max_length=MAX_TEXTS)]


class Answer(BaseModel):
    """Base of all answers: which model, of which encoder."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str
    """The version that answered."""

    recipe: str
    """Id of the encoder recipe."""


class PredictAnswer(Answer):
    """Predictions, in the shape of the request."""

    output_type: Literal["decoder", "cosine", "both"]
    decoder: list[float] | list[list[float]] | None = None
    cosine: list[float] | list[list[float]] | None = None
    out_of_distribution: bool | list[bool]
    """The context holds a vector farther from the training embeddings than all but one in a thousand unseen ones."""


class TextOf(BaseModel):
    """A vector in words."""

    text: str
    roundtrip_cosine: float
    """Cosine of the text's own embedding to the vector."""

    steps: int
    """Corrections until this text was found."""


class Neighbour(BaseModel):
    """A real chunk."""

    text: str
    doc_id: str
    chunk_index: int
    source: str
    score: float
    """Cosine to y_cos."""


class Plane(BaseModel):
    """Where things lie on the plane in which they differ most: [x, y] each."""

    context: list[list[float]]
    prediction: list[float]
    neighbours: list[list[float]]


class Step(BaseModel):
    """One predicted chunk."""

    decoded: TextOf | None
    neighbours: list[Neighbour]
    out_of_distribution: bool
    similarities: list[float]
    """Cosine of the prediction to each chunk of its context."""

    plane: Plane


class PredictTextAnswer(Answer):
    """What may follow."""

    steps: list[Step]


class EncodeAnswer(Answer):
    """Vectors of texts."""

    vectors: list[list[float]]


class DecodeAnswer(Answer):
    """Texts of vectors."""

    results: list[TextOf]


class Problem(BaseModel):
    """What was wrong, and where."""

    type: str
    loc: list[str | int]
    msg: str


class Refusal(BaseModel):
    """Every answer that refuses."""

    detail: list[Problem]


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": description}
    for status, description in {
        401: "No key, or another one.",
        413: "The body is too large.",
        415: "The body is of another type.",
        422: "A field cannot be used; `loc` names it.",
        429: "Too many requests at once; try again after Retry-After seconds.",
        503: "Not ready: a model is still being loaded.",
        504: "The deadline passed before the prediction was begun.",
    }.items()
}
