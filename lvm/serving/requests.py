"""Reading the contexts of `POST /predict` from a JSON or .npy body, and checking them for a model.

A .npy body has a third of the bytes of a JSON body, and its numbers need no parsing. Neither is trusted: a .npy header may
state any shape, and JSON may contain anything.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from lvm.errors import InputError

if TYPE_CHECKING:
    from lvm.serving.loaded_model import LoadedModel

JSON, NPY = "application/json", "application/x-npy"

OUTPUTS = ("decoder", "cosine", "both")

FIELDS = ("context_vectors", "output_type", "model")

MAX_CONTEXTS = 256
"""Contexts in a request."""

MAX_HEADER = 1024
"""Bytes of a .npy header that are read."""


@dataclass(frozen=True)
class ContextRequest:
    """The fields of `POST /predict`, not yet checked for a model."""

    vectors: np.ndarray
    """float32, [T, D] or [B, T, D]."""

    output_type: str
    model: str | None


class FieldError(InputError):
    """A field of a request cannot be used; `loc` is its path in the request."""

    def __init__(self, message: str, *loc: str | int) -> None:
        super().__init__(message)
        self.loc = loc


def read_json(body: bytes) -> ContextRequest:
    """Read a JSON body; `FieldError` names the field that is wrong."""
    try:
        values = orjson.loads(body)
    except ValueError as error:
        raise FieldError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise FieldError("expected an object with the field 'context_vectors'")
    for name in values:
        if name not in FIELDS:
            raise FieldError(f"unknown; there are {', '.join(FIELDS)}", name)
    if "context_vectors" not in values:
        raise FieldError("missing", "context_vectors")
    return ContextRequest(_numbers(values["context_vectors"]), *_options(values))


def read_npy(body: bytes, query: Mapping[str, str]) -> ContextRequest:
    """Read a .npy body of float32, with the other fields from the query; `FieldError` names the field that is wrong."""
    for name in query:
        if name not in FIELDS[1:]:
            raise FieldError(f"unknown; there are {', '.join(FIELDS[1:])}", name)
    return ContextRequest(read_array(body), *_options(query))


def read_array(body: bytes) -> np.ndarray:
    """The array in a .npy file of little-endian float32 in C order. The stated shape is checked against the number of bytes."""
    try:
        version = np.lib.format.read_magic(io.BytesIO(body[:8]))
        start = 10 + int.from_bytes(body[8:10], "little") if version == (1, 0) else 12 + int.from_bytes(body[8:12], "little")
        shape, fortran, dtype = _parse_header(body[: min(start, MAX_HEADER)])
    except Exception as error:  # NumPy evaluates the header as a Python literal, which can fail in many ways
        raise FieldError("not a .npy file: its header cannot be read", "context_vectors") from error
    if dtype != np.dtype("<f4") or fortran:
        raise FieldError(f"dtype {dtype}{', Fortran order' if fortran else ''}: expected float32 in C order", "context_vectors")
    count = math.prod(shape)
    if any(size < 0 for size in shape) or count * 4 != len(body) - start:
        raise FieldError(f"shape {list(shape)} needs {count * 4} bytes, got {len(body) - start}", "context_vectors")
    return np.frombuffer(body, np.float32, count, start).reshape(shape)


def write_array(array: np.ndarray) -> bytes:
    """`array` as a .npy file of float32."""
    return _npy_header(array.shape) + np.ascontiguousarray(array, np.float32).tobytes()


@lru_cache(256)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype. Cached: NumPy parses slowly, and most requests have the same header."""
    file = io.BytesIO(header)
    read = np.lib.format.read_array_header_1_0 if np.lib.format.read_magic(file) == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


@lru_cache(256)
def _npy_header(shape: tuple[int, ...]) -> bytes:
    """The .npy header of a float32 array."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def check_contexts(vectors: np.ndarray, model: "LoadedModel") -> np.ndarray:
    """`vectors` as contexts [B, T, D] that `model` can read; `FieldError` names the vector that it cannot read."""
    dim = model.recipe.dim
    if vectors.ndim not in (2, 3) or vectors.shape[-1] != dim:
        expected = f"[T, {dim}] or [B, T, {dim}], vectors of {model.recipe.name}"
        raise FieldError(f"shape {list(vectors.shape)}: expected {expected}", "context_vectors")
    contexts = vectors if vectors.ndim == 3 else vectors[None]
    batch, length, _ = contexts.shape
    if not 1 <= batch <= MAX_CONTEXTS:
        raise FieldError(f"{batch} contexts: expected 1 to {MAX_CONTEXTS}", "context_vectors")
    if not 1 <= length <= model.max_context:
        limit = f"expected 1 to {model.max_context}, the length that {model.name} was trained on"
        raise FieldError(f"{length} chunks of context: {limit}", "context_vectors")
    _check_norms(contexts, model, ("context_vectors",), single=vectors.ndim == 2)
    return np.ascontiguousarray(contexts)


def _check_norms(contexts_BTD: np.ndarray, model: "LoadedModel", loc: tuple[str], single: bool) -> None:
    """Raise `FieldError` at the first vector that is not finite or whose norm is impossible for the model's recipe."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("btd,btd->bt", contexts_BTD, contexts_BTD))
    low, high = model.norm_range
    wrong = ~((norms >= low) & (norms <= high))
    if not wrong.any():
        return
    row, position = (int(found[0]) for found in np.nonzero(wrong))
    place = (*loc, position) if single else (*loc, row, position)
    if not np.isfinite(contexts_BTD[row, position]).all():
        raise FieldError("contains NaN or infinity", *place)
    kind = "unit vectors" if model.recipe.normalize else f"norms of {low:.3g} to {high:.3g}"
    raise FieldError(f"norm {float(norms[row, position]):.4g}: the recipe {model.recipe.name} makes {kind}", *place)


def _options(values: Mapping[str, Any]) -> tuple[str, str | None]:
    """The fields `output_type` and `model`."""
    output, model = values.get("output_type", "decoder"), values.get("model")
    if not isinstance(output, str) or output not in OUTPUTS:
        raise FieldError(f"expected one of {', '.join(OUTPUTS)}", "output_type")
    if model is not None and not isinstance(model, str):
        raise FieldError("expected the name of a served model", "model")
    return output, model


def _numbers(value: Any) -> np.ndarray:
    """Nested lists of numbers as a float32 array."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError):
        raise _ragged_error(value) from None
    if array.dtype.kind not in "fiu":
        raise FieldError("expected lists of numbers: [T, D] or [B, T, D]", "context_vectors")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _ragged_error(value: Any) -> FieldError:
    """The error for nested lists that are not rectangular, at the first list of another length."""
    lists = value
    while isinstance(lists, list) and lists and isinstance(lists[0], list):
        for number, item in enumerate(lists):
            if not isinstance(item, list):
                return FieldError(f"not a list, where the first has {len(lists[0])} entries", "context_vectors", number)
            if len(item) != len(lists[0]):
                return FieldError(f"{len(item)} entries, where the first has {len(lists[0])}", "context_vectors", number)
        lists = [entry for item in lists for entry in item]
    return FieldError("ragged: expected lists of numbers, [T, D] or [B, T, D]", "context_vectors")
