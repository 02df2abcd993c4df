"""Read the input of `lvm decode` and `lvm generate`: one text a line, or a file of vectors."""

from pathlib import Path

import numpy as np

from lvm.data.cleaning import clean
from lvm.data.encoders import Encoder, token_counts
from lvm.data.readable import Reader
from lvm.data.recipe import EncoderRecipe
from lvm.decoding.protocol import require_vectors
from lvm.errors import InputError


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, stripped of surrounding white space.

    Raises `InputError` when the file is missing, empty or not UTF-8, or when a line is empty.
    """
    if not path.is_file():
        raise InputError(f"text file {path} does not exist or is not a file: give one with a text on every line")
    try:
        text = path.read_bytes().decode("utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise InputError(f"text file {path}: invalid UTF-8 at byte {error.start}: save it as UTF-8") from error
    if not text:
        raise InputError(f"text file {path} is empty: give a text on every line")
    lines = [line.strip() for line in text.split("\n")]
    if "" in lines:
        raise InputError(f"text file {path}, line {lines.index('') + 1} is empty: give a text on every line")
    return lines


def encode_texts(path: Path, encoder: Encoder) -> tuple[list[str], np.ndarray]:
    """The texts of a file and their vectors, float32 [n, dim].

    Raises `InputError` naming the line when a text is longer than the encoder reads, which would cut it silently, and when the encoder
    cannot read it.
    """
    texts, limit = [clean(text) for text in read_texts(path)], encoder.recipe.max_tokens
    for number, tokens in enumerate(token_counts(encoder, texts), 1):
        if tokens > limit:
            too_long = f"text file {path}, line {number}: {tokens} tokens"
            raise InputError(f"{too_long}, but {encoder.recipe.name} reads {limit}: split it into several lines")
    if unreadable := Reader(encoder.tokenizer).first_unreadable(texts, encoder.recipe.name):
        number, problem = unreadable
        raise InputError(f"text file {path}, line {number + 1}: {problem}: write in a language that it knows")
    return texts, encoder.encode(texts)


def read_vectors(path: Path, recipe: EncoderRecipe) -> np.ndarray:
    """The vectors of a .npy file, float32 [n, dim]. Pickled data is refused.

    Raises `InputError` when the file is missing, is not a .npy array of numbers, or cannot hold vectors of `recipe`.
    """
    if not path.is_file():
        raise InputError(f"vector file {path} does not exist or is not a file: give a .npy file of shape [n, {recipe.dim}]")
    try:
        with path.open("rb") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"vector file {path} is not a complete .npy array of numbers ({error}): write it with numpy.save") from error
    if not np.issubdtype(vectors.dtype, np.floating):
        raise InputError(f"vector file {path} has dtype {vectors.dtype}: give float32")
    if not len(vectors):
        raise InputError(f"vector file {path} is empty: give at least one vector")
    return require_vectors(vectors, recipe)
