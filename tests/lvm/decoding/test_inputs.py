"""What cannot be decoded is refused in one sentence that names the line or the file."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from lvm.data.encoders import Encoder
from lvm.decoding.inputs import encode_texts, read_texts, read_vectors
from lvm.errors import InputError


def file(folder: Path, content: bytes) -> Path:
    path = folder / "texts.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\n  two \r\n\n\n", ["one", "two"]),
        (b"\xef\xbb\xbfone", ["one"]),
        ("naïve \u2028 same line\n".encode(), ["naïve \u2028 same line"]),
    ],
    ids=["unix", "windows", "byte order mark", "unicode"],
)
def test_a_text_stands_on_every_line(content: bytes, texts: list[str], tmp_path: Path) -> None:
    assert read_texts(file(tmp_path, content)) == texts


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"one\n\nthree\n", "line 2 is empty"),
        (b"\none\n", "line 1 is empty"),
        (b"one\n\xff\n", "invalid UTF-8 at byte 4"),
    ],
)
def test_a_text_that_is_none_is_refused_by_its_line(content: bytes, says: str, tmp_path: Path) -> None:
    path = file(tmp_path, content)
    with pytest.raises(InputError) as refusal:
        read_texts(path)
    assert says in str(refusal.value) and str(path) in str(refusal.value)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="is not a file"):
            read_texts(path)
        with pytest.raises(InputError, match="is not a file"):
            read_vectors(path, encoder.recipe)


def test_texts_become_their_embeddings(tmp_path: Path, encoder: Encoder) -> None:
    texts, vectors = encode_texts(file(tmp_path, b"We the people.\nThe navy.\n"), encoder)
    assert texts == ["We the people.", "The navy."]
    assert np.array_equal(vectors, encoder.encode(texts))


def test_a_text_that_the_encoder_cannot_read_is_refused_by_its_line(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(InputError, match="line 2: minilm reads no Thai: the text is mostly unknown tokens to it"):
        encode_texts(file(tmp_path, "one\u200b\nสวัสดีตอนเช้า\n".encode()), encoder)


def test_a_text_beyond_the_encoder_is_refused_by_its_line_and_one_that_just_fits_is_not(tmp_path: Path, encoder: Encoder) -> None:
    limit = encoder.recipe.max_tokens
    fits = "navy " * (limit - 2)  # two special tokens
    assert len(encode_texts(file(tmp_path, fits.encode()), encoder)[0]) == 1
    with pytest.raises(InputError, match=rf"line 2: {limit + 1} tokens, but minilm reads {limit}: split it"):
        encode_texts(file(tmp_path, f"The navy.\n{fits}navy\n".encode()), encoder)


def test_vectors_come_back_as_they_were_written(tmp_path: Path, encoder: Encoder) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, encoder.recipe.dim))
    np.save(tmp_path / "v.npy", vectors)
    found = read_vectors(tmp_path / "v.npy", encoder.recipe)
    assert found.dtype == np.float32 and np.array_equal(found, vectors.astype(np.float32))


def spoil(name: str, folder: Path) -> Path:
    path = folder / "v.npy"
    vectors = np.ones((3, 384), np.float32)
    if name == "pickled":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif name == "pickle":
        path.write_bytes(pickle.dumps(vectors))
    elif name == "archive":
        np.savez(folder / "v.npz", vectors=vectors)
        path = folder / "v.npz"
    elif name == "truncated":
        np.save(path, vectors)
        path.write_bytes(path.read_bytes()[:-100])
    elif name == "text":
        path.write_text("1.0 2.0")
    elif name == "empty":
        path.write_bytes(b"")
    else:
        vectors[1, 5] = {"nan": np.nan, "infinite": np.inf}.get(name, 1)
        vectors[1] *= 0 if name == "zero" else 1
        shapes = {"dimension": vectors[:, :100], "one vector": vectors[0], "integers": np.ones((3, 384), int), "none": vectors[:0]}
        np.save(path, shapes.get(name, vectors))
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pickled", "is not a complete .npy array of numbers"),
        ("pickle", "is not a complete .npy array of numbers"),
        ("archive", "is not a complete .npy array of numbers"),
        ("truncated", "is not a complete .npy array of numbers"),
        ("text", "is not a complete .npy array of numbers"),
        ("empty", "is not a complete .npy array of numbers"),
        ("dimension", "vectors of shape [3, 100]: expected [n, 384], the dimension of minilm"),
        ("one vector", "vectors of shape [384]: expected [n, 384]"),
        ("integers", "has dtype int64: give float32"),
        ("none", "is empty: give at least one vector"),
        ("nan", "vectors [1] of 3 are zero, NaN or infinite"),
        ("infinite", "vectors [1] of 3 are zero, NaN or infinite"),
        ("zero", "vectors [1] of 3 are zero, NaN or infinite"),
    ],
)
def test_a_file_that_holds_no_vectors_of_the_recipe_is_refused(name: str, says: str, tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(InputError) as refusal:
        read_vectors(spoil(name, tmp_path), encoder.recipe)
    assert says in str(refusal.value)
