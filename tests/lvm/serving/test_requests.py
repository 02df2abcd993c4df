"""A body is read as exactly the contexts that were sent, or refused with an error that names the field."""

import io
import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lvm.serving.requests import MAX_CONTEXTS, FieldError, check_contexts, read_array, read_json, read_npy, write_array

FLOATS = st.floats(-4, 4, width=32)


def npy(array: np.ndarray, **kwargs: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def location(error: pytest.ExceptionInfo[FieldError]) -> tuple[object, ...]:
    return error.value.loc


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=3, max_side=4), elements=FLOATS))
def test_json_and_npy_give_back_the_array(array):
    as_json = orjson.dumps({"context_vectors": array}, option=orjson.OPT_SERIALIZE_NUMPY)
    for found in (read_json(as_json), read_npy(npy(array), {})):
        assert np.array_equal(found.vectors, array) and found.vectors.dtype == np.float32
        assert (found.output_type, found.model) == ("decoder", None)
    assert np.array_equal(read_array(write_array(array)), array)


@settings(max_examples=300)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: npy(np.zeros((2, 2), np.float32))[:-8] + tail))
def test_any_bytes_are_an_array_or_an_error_with_a_field(body):
    try:
        assert read_array(body).dtype == np.float32
    except FieldError as error:
        assert error.loc == ("context_vectors",)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


@given(JSON_VALUES | st.fixed_dictionaries({"context_vectors": JSON_VALUES, "output_type": JSON_VALUES}))
def test_any_json_is_read_or_an_error(value):
    try:
        assert read_json(json.dumps(value).encode()).vectors.dtype == np.float32
    except FieldError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        (b"{", ()),
        (b"[]", ()),
        (b"{}", ("context_vectors",)),
        (b'{"context_vectors": [[1.0]], "sauce": 1}', ("sauce",)),
        (b'{"context_vectors": [["1.0"]]}', ("context_vectors",)),
        (b'{"context_vectors": [[null]]}', ("context_vectors",)),
        (b'{"context_vectors": [[true]]}', ("context_vectors",)),
        (b'{"context_vectors": {"a": 1}}', ("context_vectors",)),
        (b'{"context_vectors": [[1.0, 2.0], [1.0]]}', ("context_vectors", 1)),
        (b'{"context_vectors": [[[1.0]], [[1.0], [2.0]]]}', ("context_vectors", 1)),
        (b'{"context_vectors": [[1.0], 2.0]}', ("context_vectors", 1)),
        (b'{"context_vectors": [[1.0]], "output_type": "text"}', ("output_type",)),
        (b'{"context_vectors": [[1.0]], "output_type": []}', ("output_type",)),
        (b'{"context_vectors": [[1.0]], "model": 3}', ("model",)),
        (b'{"context_vectors": [[NaN]]}', ()),
    ],
)
def test_json_error_names_the_field(body, loc):
    with pytest.raises(FieldError) as error:
        read_json(body)
    assert location(error) == loc


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (npy(np.zeros((2, 3))), "dtype float64"),
        (npy(np.zeros((2, 3), ">f4")), "dtype >f4"),
        (npy(np.asfortranarray(np.zeros((2, 3), np.float32))), "Fortran order"),
        (npy(np.array([{}], object), allow_pickle=True), "dtype object"),
        (npy(np.zeros((2, 3), np.float32))[:-1], r"shape \[2, 3\] needs 24 bytes, got 23"),
        (npy(np.zeros((2, 3), np.float32)).replace(b"(2, 3)", b"(2,-3)"), r"needs -24 bytes|header"),
        (npy(np.zeros((2, 3), np.float32)).replace(b"(2, 3), }   ", b"(2, 9**9)}  "), "header cannot be read"),
        (npy(np.zeros((2, 30000), np.float32))[:200].replace(b"30000", b"99999"), r"needs 799992 bytes"),
        (b"PK\x03\x04", "header cannot be read"),
        (b"", "header cannot be read"),
    ],
)
def test_npy_whose_header_is_wrong_is_refused(body, says):
    with pytest.raises(FieldError, match=says):
        read_array(body)


def test_unknown_query_field_is_refused(contexts):
    with pytest.raises(FieldError) as error:
        read_npy(npy(contexts), {"sauce": "1"})
    assert location(error) == ("sauce",)


# Checked for a model


def test_one_context_is_a_batch_of_one(contexts, model):
    assert np.array_equal(check_contexts(contexts[0], model), contexts[:1])
    assert np.array_equal(check_contexts(contexts, model), contexts)


def spoiled(contexts: np.ndarray, value: float) -> np.ndarray:
    copy = contexts.copy()
    copy[2, 3] *= value
    return copy


@pytest.mark.parametrize(
    ("change", "loc", "says"),
    [
        (lambda c: spoiled(c, np.nan), ("context_vectors", 2, 3), "contains NaN or infinity"),
        (lambda c: spoiled(c, np.inf), ("context_vectors", 2, 3), "contains NaN or infinity"),
        (lambda c: spoiled(c, 0), ("context_vectors", 2, 3), "norm 0: the recipe minilm makes unit vectors"),
        (lambda c: spoiled(c, 1.5), ("context_vectors", 2, 3), "norm 1.5: the recipe minilm makes unit vectors"),
        (lambda c: spoiled(c, 1e38), ("context_vectors", 2, 3), "norm"),
        (lambda c: spoiled(c, np.nan)[2], ("context_vectors", 3), "contains NaN or infinity"),
        (lambda c: c[..., :-1], ("context_vectors",), r"shape \[6, 5, 383\]: expected \[T, 384\] or \[B, T, 384\]"),
        (lambda c: c[0, 0], ("context_vectors",), "shape"),
        (lambda c: c[None], ("context_vectors",), "shape"),
        (lambda c: c[:, :0], ("context_vectors",), "0 chunks of context"),
        (lambda c: c[:0], ("context_vectors",), "0 contexts"),
        (lambda c: np.tile(c, (50, 1, 1)), ("context_vectors",), f"300 contexts: expected 1 to {MAX_CONTEXTS}"),
        (lambda c: np.tile(c, (1, 200, 1)), ("context_vectors",), "1000 chunks of context"),
    ],
)
def test_vector_that_the_model_cannot_read_is_named(change, loc, says, contexts, model):
    with pytest.raises(FieldError, match=says) as error:
        check_contexts(change(contexts), model)
    assert location(error) == loc


def test_vectors_rounded_to_bfloat16_are_accepted(contexts, model):
    import torch

    rounded = torch.from_numpy(contexts).bfloat16().float().numpy()
    assert check_contexts(rounded, model).shape == contexts.shape
