"""Answers in the shapes that `schemas` declares, as JSON or .npy."""

from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
from fastapi import Response

from lvm.decoding.protocol import Decoded
from lvm.serving.loaded_model import Predicted, Served
from lvm.serving.requests import JSON, NPY, Asked, FieldError, write_array
from lvm.serving.text import Followed


def as_json(found: Predicted, asked: Asked, served: Served) -> Response:
    """The answer to `POST /predict` as JSON."""
    answer: dict[str, Any] = {**who(served), "output_type": asked.output_type}
    for name, vectors in _outputs(found, asked):
        answer[name] = vectors
    answer["out_of_distribution"] = bool(found.out_of_distribution[0]) if asked.vectors.ndim == 2 else found.out_of_distribution
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)


def as_npy(found: Predicted, asked: Asked, served: Served) -> Response:
    """The answer as a .npy file, with what else there is to say in its headers."""
    vectors = [vectors for _, vectors in _outputs(found, asked)]
    headers = {f"lvm-{name}": value for name, value in who(served).items()}
    headers["lvm-out-of-distribution"] = ",".join(str(int(flag)) for flag in found.out_of_distribution)
    return Response(write_array(np.stack(vectors) if len(vectors) > 1 else vectors[0]), media_type=NPY, headers=headers)


def _outputs(found: Predicted, asked: Asked) -> list[tuple[str, np.ndarray]]:
    """What was asked for, by name, in the request's shape."""
    wanted = [(name, vectors) for name, vectors in (("decoder", found.decoder), ("cosine", found.cosine))]
    wanted = [pair for pair in wanted if asked.output_type in (pair[0], "both")]
    return [(name, np.ascontiguousarray(vectors[0] if asked.vectors.ndim == 2 else vectors)) for name, vectors in wanted]


def who(served: Served) -> dict[str, str]:
    """What every answer carries."""
    return {"model": served.name, "recipe": served.recipe_id}


def step_answer(step: Followed) -> dict[str, Any]:
    """One predicted chunk."""
    length = len(step.similarities)
    plane = step.plane.tolist()
    neighbours = [{**asdict(chunk), "score": chunk.cosine} for chunk in step.neighbours]
    return {
        "decoded": words_answer(step.text) if step.text else None,
        "neighbours": neighbours,
        "out_of_distribution": step.out_of_distribution,
        "similarities": step.similarities,
        "plane": {"context": plane[:length], "prediction": plane[length], "neighbours": plane[length + 1 :]},
    }


def words_answer(found: Decoded) -> dict[str, Any]:
    """A vector in words."""
    return {"text": found.text, "roundtrip_cosine": found.roundtrip_cosine, "steps": found.steps}


def rows(vectors: list[list[float]]) -> np.ndarray:
    """Lists of one length as float32 [n, D]; `FieldError` naming the one of another length."""
    for number, vector in enumerate(vectors):
        if len(vector) != len(vectors[0]):
            raise FieldError(f"{len(vector)} entries, where the first has {len(vectors[0])}", "vectors", number)
    return np.array(vectors, np.float32)
