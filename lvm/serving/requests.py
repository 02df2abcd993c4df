"""Contexts out of a request's body, JSON or .npy, checked before they reach a model.

The binary form is a third of the bytes, and none of its numbers have to be parsed. Neither is
trusted: a header may claim any shape, and JSON may hold anything.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from lvm.errors import InputError
from lvm.serving.loaded_model import Served

JSON, NPY = "application/json", "application/x-npy"


OUTPUTS = ("decoder", "cosine", "both")


FIELDS = ("context_vectors", "output_type", "model")


MAX_CONTEXTS = 256


MAX_HEADER = 1024


@dataclass(frozen=True)
class Asked:
    """A request for predictions, not yet held against a model."""

    vectors: np.ndarray
    """float32, [T, D] or [B, T, D]."""

    output_type: str
    model: str | None


class FieldError(InputError):
    """A field of a request cannot be used; `loc` is where it stands."""

    def __init__(self, message: str, *loc: str | int) -> None:
        super().__init__(message)
        self.loc = loc


def read_json(body: bytes) -> Asked:
    """The body of `POST /predict` as JSON; `FieldError` names what is wrong."""
    try:
        values = orjson.loads(body)
    except ValueError as error:
        raise FieldError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise FieldError("expected an object with the field 'context_vectors'")
    for name in values:
        if name not in FIELDS:
            raise FieldError(f"unknown; known are {', '.join(FIELDS)}", name)
    if "context_vectors" not in values:
        raise FieldError("missing", "context_vectors")
    return Asked(_numbers(values["context_vectors"]), *_choices(values))


def read_npy(body: bytes, query: Mapping[str, str]) -> Asked:
    """The body as a .npy file of float32, the other fields from the query; `FieldError` names what is wrong."""
    for name in query:
        if name not in FIELDS[1:]:
            raise FieldError(f"unknown; known are {', '.join(FIELDS[1:])}", name)
    return Asked(read_array(body), *_choices(query))


def read_array(body: bytes) -> np.ndarray:
    """The array of a .npy file of little-endian float32, in C order; what its header claims is held against the bytes that came."""
    try:
        version = np.lib.format.read_magic(io.BytesIO(body[:8]))
        start = 10 + int.from_bytes(body[8:10], "little") if version == (1, 0) else 12 + int.from_bytes(body[8:12], "little")
        shape, fortran, dtype = _header(body[: min(start, MAX_HEADER)])
    except Exception as error:  # NumPy evaluates the header as Python's literals, which can fail in any way
        raise FieldError("not a .npy file: its header cannot be read", "context_vectors") from error
    if dtype != np.dtype("<f4") or fortran:
        raise FieldError(f"dtype {dtype}{', Fortran order' if fortran else ''}: expected float32 in C order", "context_vectors")
    count = math.prod(shape)
    if any(size < 0 for size in shape) or count * 4 != len(body) - start:
        raise FieldError(f"shape {list(shape)} needs {count * 4} bytes, {len(body) - start} came", "context_vectors")
    return np.frombuffer(body, np.float32, count, start).reshape(shape)


def write_array(array: np.ndarray) -> bytes:
    """`array` as a .npy file of float32."""
    return _head(array.shape) + np.ascontiguousarray(array, np.float32).tobytes()


@lru_cache(256)
def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype. NumPy evaluates the header as Python's literals, slowly, and most requests have the same."""
    file = io.BytesIO(head)
    read = np.lib.format.read_array_header_1_0 if np.lib.format.read_magic(file) == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


@lru_cache(256)
def _head(shape: tuple[int, ...]) -> bytes:
    """The header of a float32 array."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def check_contexts(vectors: np.ndarray, served: Served) -> np.ndarray:
    """`vectors` as contexts [B, T, D] that `served` can read; `FieldError` names the vector that it cannot."""
    dim = served.recipe.dim
    if vectors.ndim not in (2, 3) or vectors.shape[-1] != dim:
        expected = f"[T, {dim}] or [B, T, {dim}], vectors of {served.recipe.name}"
        raise FieldError(f"shape {list(vectors.shape)}: expected {expected}", "context_vectors")
    contexts = vectors if vectors.ndim == 3 else vectors[None]
    batch, length, _ = contexts.shape
    if not 1 <= batch <= MAX_CONTEXTS:
        raise FieldError(f"{batch} contexts: expected 1 to {MAX_CONTEXTS}", "context_vectors")
    if not 1 <= length <= served.longest:
        raise FieldError(f"{length} chunks of context: expected 1 to {served.longest}, as {served.name} was trained on", "context_vectors")
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("btd,btd->bt", contexts, contexts))
    low, high = served.norms
    wrong = ~((norms >= low) & (norms <= high))
    if wrong.any():
        row, at = (int(found[0]) for found in np.nonzero(wrong))
        place = (row, at) if vectors.ndim == 3 else (at,)
        if not np.isfinite(contexts[row, at]).all():
            raise FieldError("holds NaN or infinity", "context_vectors", *place)
        kind = "unit vectors" if served.recipe.normalize else f"norms of {low:.3g} to {high:.3g}"
        raise FieldError(f"norm {float(norms[row, at]):.4g}: the recipe {served.recipe.name} gives {kind}", "context_vectors", *place)
    return np.ascontiguousarray(contexts)


def _choices(values: Mapping[str, Any]) -> tuple[str, str | None]:
    output, model = values.get("output_type", "decoder"), values.get("model")
    if not isinstance(output, str) or output not in OUTPUTS:
        raise FieldError(f"expected one of {', '.join(OUTPUTS)}", "output_type")
    if model is not None and not isinstance(model, str):
        raise FieldError("expected the name of a served model", "model")
    return output, model


def _numbers(value: Any) -> np.ndarray:
    """Nested lists of numbers as an array."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError):
        raise FieldError(*_ragged(value)) from None
    if array.dtype.kind not in "fiu":
        raise FieldError("expected lists of numbers: [T, D] or [B, T, D]", "context_vectors")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _ragged(value: Any) -> Any:
    """What to say, and where, of lists that are no rectangle."""
    lists, place = value, ("context_vectors",)
    while isinstance(lists, list) and lists and isinstance(lists[0], list):
        for number, item in enumerate(lists):
            if not isinstance(item, list) or len(item) != len(lists[0]):
                size = f"{len(item)} entries" if isinstance(item, list) else "no list"
                return f"{size}, where the first has {len(lists[0])}", *place, number
        lists, place = [entry for item in lists for entry in item], place
    return "ragged: expected lists of numbers, [T, D] or [B, T, D]", "context_vectors"
