"""Building the responses that `schemas` declares, as JSON or .npy, and error responses outside FastAPI."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from fastapi import Response
from starlette.types import Message

from lvm.serving.requests import JSON, NPY, ContextRequest, FieldError, write_array

if TYPE_CHECKING:
    from lvm.decoding.protocol import Decoded
    from lvm.serving.loaded_model import LoadedModel, PredictionBatch
    from lvm.serving.text import TextStep


def json_response(predicted: "PredictionBatch", request: ContextRequest, model: "LoadedModel") -> Response:
    """The response to `POST /predict` as JSON."""
    values: dict[str, Any] = {**model_fields(model), "output_type": request.output_type, **_outputs(predicted, request)}
    flags = predicted.out_of_distribution
    values["out_of_distribution"] = bool(flags[0]) if request.vectors.ndim == 2 else flags
    return Response(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)


def npy_response(predicted: "PredictionBatch", request: ContextRequest, model: "LoadedModel") -> Response:
    """The response as a .npy file, with the other fields in headers."""
    vectors = list(_outputs(predicted, request).values())
    headers = {f"lvm-{name}": value for name, value in model_fields(model).items()}
    headers["lvm-out-of-distribution"] = ",".join(str(int(flag)) for flag in predicted.out_of_distribution)
    return Response(write_array(np.stack(vectors) if len(vectors) > 1 else vectors[0]), media_type=NPY, headers=headers)


def _outputs(predicted: "PredictionBatch", request: ContextRequest) -> dict[str, np.ndarray]:
    """The requested vectors by name, in the request's shape."""
    vectors = {"decoder": predicted.decoder, "cosine": predicted.cosine}
    single = request.vectors.ndim == 2
    return {
        name: np.ascontiguousarray(found[0] if single else found)
        for name, found in vectors.items()
        if request.output_type in (name, "both")
    }


def model_fields(model: "LoadedModel") -> dict[str, str]:
    """The fields of every response."""
    return {"model": model.name, "recipe": model.recipe_id}


def step_fields(step: "TextStep") -> dict[str, Any]:
    """A predicted chunk of `POST /predict_text`."""
    length, plane = len(step.similarities), step.plane.tolist()
    return {
        "decoded": decoded_fields(step.decoded) if step.decoded else None,
        "neighbours": [{**asdict(chunk), "score": chunk.cosine} for chunk in step.neighbours],
        "out_of_distribution": step.out_of_distribution,
        "similarities": step.similarities,
        "plane": {"context": plane[:length], "prediction": plane[length], "neighbours": plane[length + 1 :]},
    }


def decoded_fields(decoded: "Decoded") -> dict[str, Any]:
    """The text of a vector."""
    return {"text": decoded.text, "roundtrip_cosine": decoded.roundtrip_cosine, "steps": decoded.steps}


def vectors_of_lists(vectors: list[list[float]]) -> np.ndarray:
    """Lists of one length as float32 [n, D]; `FieldError` names the first list of another length."""
    for number, vector in enumerate(vectors):
        if len(vector) != len(vectors[0]):
            raise FieldError(f"{len(vector)} entries, where the first has {len(vectors[0])}", "vectors", number)
    return np.array(vectors, np.float32)


def error_detail(kind: str, message: str) -> list[dict[str, Any]]:
    """The field `detail` of an error that concerns no field of the request."""
    return [{"type": kind, "loc": [], "msg": message}]


def error_messages(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> tuple[Message, Message]:
    """An error response as ASGI messages, for code that runs before FastAPI; of the same shape as all others."""
    body = orjson.dumps({"detail": error_detail(kind, message)})
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    return {"type": "http.response.start", "status": status, "headers": encoded}, {"type": "http.response.body", "body": body}
