"""Columns of any type that can hold vectors, ids and positions become one form; others are refused by name."""

import numpy as np
import pyarrow as pa
import pytest

from lvm.data.importer.block import integers_of, strings, vectors_of
from lvm.errors import InputError

ROWS = [[1.0, 2.0], [0.5, -4.0], [8.0, 0.25]]
LISTS = [
    make(number) for number in (pa.float16(), pa.float32(), pa.float64()) for make in (pa.list_, pa.large_list, lambda n: pa.list_(n, 2))
]


@pytest.mark.parametrize("kind", LISTS, ids=str)
def test_lists_of_floats_become_float32_also_in_a_slice_of_a_column(kind):
    column = pa.array([[9.0, 9.0], *ROWS, [9.0, 9.0]], kind).slice(1, 3)
    found = vectors_of(column, 2, "t", 1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(ROWS, np.float32))


@pytest.mark.parametrize("kind", LISTS, ids=str)
def test_a_missing_vector_or_number_is_nan_in_its_own_row(kind):
    found = vectors_of(pa.array([ROWS[0], None, [None, 3.0]], kind), 2, "t", 1)
    np.testing.assert_array_equal(found, np.array([ROWS[0], [np.nan, np.nan], [np.nan, 3.0]], np.float32))


def test_a_tensor_column_is_read():
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(ROWS, np.float32))
    np.testing.assert_array_equal(vectors_of(tensors, 2, "t", 1), np.array(ROWS, np.float32))


def test_a_number_beyond_float32_becomes_infinite():
    assert np.isinf(vectors_of(pa.array([[1e300, 1.0]]), 2, "t", 1)[0, 0])


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pa.array([[1.0, 2.0], None, [1.0]]), "t, row 12: a vector of dimension 1, but the recipe says dim 2"),
        (pa.array([[1, 2]]), r"t is of type list<.*int64>: give lists of float16, float32 or float64"),
        (pa.array(["[1, 2]"]), "t is of type string"),
    ],
)
def test_other_vectors_are_refused(column, sentence):
    with pytest.raises(InputError, match=sentence):
        vectors_of(column, 2, "t", 10)


def test_ids_are_strings_or_whole_numbers_also_as_categories():
    assert strings(pa.array([7, None, 8]), "t", 1, integers=True).to_pylist() == ["7", None, "8"]
    assert strings(pa.array(["a", "b", "a"]).dictionary_encode(), "t", 1).to_pylist() == ["a", "b", "a"]
    assert strings(pa.array(["a"], pa.large_string()), "t", 1).type == pa.string()
    with pytest.raises(InputError, match=r"t is of type double: give strings or whole numbers"):
        strings(pa.array([1.5]), "t", 1, integers=True)
    with pytest.raises(InputError, match=r"t is of type int64: give strings$"):
        strings(pa.array([1]), "t", 1)


def test_text_that_is_no_utf_8_is_refused():
    broken = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    with pytest.raises(InputError, match=r"column 'text', from row 5: Invalid UTF8"):
        strings(broken, "column 'text'", 5)


def test_positions_are_whole_numbers_also_where_gaps_made_them_floats():
    assert integers_of(pa.array([0.0, None, 2.0]), "t").to_pylist() == [0, None, 2]
    assert integers_of(pa.array([3], pa.uint8()), "t").to_pylist() == [3]
    with pytest.raises(InputError, match=r"t holds numbers that are not whole"):
        integers_of(pa.array([0.5]), "t")
    with pytest.raises(InputError, match=r"t is of type string, but chunk_index counts the chunks of a document"):
        integers_of(pa.array(["d0-1"]), "t")
