"""Requests and responses as OpenAPI shows them. Requests with text are checked by them; `/predict` is read by `requests`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TEXTS = 64
MAX_CHARACTERS = 8_000
MAX_STEPS = 8
MAX_NEIGHBOURS = 50

EXAMPLE_SENTENCES = [
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


class RequestBody(BaseModel):
    """Base of all requests. Unknown fields and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class PredictRequest(RequestBody):
    """Contexts to predict from."""

    context_vectors: Context | Annotated[list[Context], Field(min_length=1)]
    """Embeddings of the last chunks, oldest first: one context [T, D] or a batch of contexts [B, T, D]."""

    output_type: Literal["decoder", "cosine", "both"] = "decoder"
    """decoder: in the encoder's raw distribution, to be decoded into text. cosine: unit length, for retrieval."""

    model: str | None = None
    """A model listed by /info; the champion by default."""


class PredictTextRequest(RequestBody):
    """A text to continue."""

    context: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    """Sentences or short passages, oldest first."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1
    """Number of chunks to predict. Each step continues from the text of the step before."""

    decode: bool = False
    """Decode each prediction into text."""

    neighbours: Annotated[int, Field(ge=0, le=MAX_NEIGHBOURS)] = 0
    """Number of nearest real chunks to return for each prediction."""

    model: str | None = None
    """A model listed by /info; the champion by default."""


class EncodeRequest(RequestBody):
    """Texts to embed."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class DecodeRequest(RequestBody):
    """Vectors to decode into text."""

    vectors: Annotated[list[Vector], Field(min_length=1, max_length=MAX_TEXTS)]


class ResponsePart(BaseModel):
    """Base of everything in a response: docstrings become descriptions."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ResponseBody(ResponsePart):
    """Base of all responses: which model answered, and its encoder."""

    model: str
    """Version of the model that answered."""

    recipe: str
    """Id of the encoder recipe."""


class PredictResponse(ResponseBody):
    """Predictions, in the shape of the request."""

    output_type: Literal["decoder", "cosine", "both"]
    decoder: list[float] | list[list[float]] | None = None
    cosine: list[float] | list[list[float]] | None = None
    out_of_distribution: bool | list[bool]
    """The context contains a vector farther from the training embeddings than all but one in a thousand validation chunks."""


class DecodedText(ResponsePart):
    """The text of a vector."""

    text: str
    roundtrip_cosine: float
    """Cosine of the text's own embedding to the vector."""

    steps: int
    """Correction steps until this text was found."""


class NeighbourResponse(ResponsePart):
    """A real chunk near a prediction."""

    text: str
    doc_id: str
    chunk_index: int
    source: str
    score: float
    """Cosine to y_cos."""


class PlaneResponse(ResponsePart):
    """Context, prediction and neighbours projected onto their first two principal components: [x, y] each."""

    context: list[list[float]]
    prediction: list[float]
    neighbours: list[list[float]]


class StepResponse(ResponsePart):
    """A predicted chunk."""

    decoded: DecodedText | None
    neighbours: list[NeighbourResponse]
    out_of_distribution: bool
    similarities: list[float]
    """Cosine of the prediction to each chunk of its context."""

    plane: PlaneResponse


class PredictTextResponse(ResponseBody):
    """The predicted continuation."""

    steps: list[StepResponse]


class EncodeResponse(ResponseBody):
    """Embeddings of the texts."""

    vectors: list[list[float]]


class DecodeResponse(ResponseBody):
    """Texts of the vectors."""

    results: list[DecodedText]


class ErrorDetail(BaseModel):
    """What is wrong, and in which field."""

    type: str
    loc: list[str | int]
    msg: str


class ErrorResponse(BaseModel):
    """The body of every error."""

    detail: list[ErrorDetail]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        401: "The key is missing or wrong.",
        413: "The body is too large.",
        415: "The content type is neither JSON nor .npy.",
        422: "A field cannot be used; `loc` names it.",
        429: "Too many requests at once; try again after Retry-After seconds.",
        503: "Not ready: the models are still loading.",
        504: "The deadline passed before the prediction began.",
    }.items()
}
"""Error responses by status, for OpenAPI."""
