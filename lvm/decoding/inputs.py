"""What `lvm decode` and `lvm generate` are given: a text a line, or a file of vectors."""

from pathlib import Path

import numpy as np

from lvm.data.encoders import Encoder
from lvm.data.recipe import EncoderRecipe
from lvm.decoding.protocol import require_vectors
from lvm.errors import InputError


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, a text each, without the white space around them.

    Raises `InputError` when the file is missing, empty or not UTF-8, or a line is empty.
    """
    if not path.is_file():
        raise InputError(f"text file {path} does not exist or is no file: give one with a text on every line")
    try:
        text = path.read_bytes().decode("utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise InputError(f"text file {path}: broken UTF-8 at byte {error.start}: save it as UTF-8") from error
    if not text:
        raise InputError(f"text file {path} is empty: give a text on every line")
    lines = [line.strip() for line in text.split("\n")]
    if "" in lines:
        raise InputError(f"text file {path}, line {lines.index('') + 1} is empty: give a text on every line")
    return lines


def encode_texts(path: Path, encoder: Encoder) -> tuple[list[str], np.ndarray]:
    """The texts of a file and their vectors, float32 [n, dim].

    Raises `InputError` naming the line when a text is longer than the encoder reads: it would be cut in silence.
    """
    texts, limit = read_texts(path), encoder.recipe.max_tokens
    for number, found in enumerate(encoder.tokenizer.encode_batch(texts), 1):
        if len(found) > limit:
            asked = f"text file {path}, line {number}: {len(found)} tokens"
            raise InputError(f"{asked}, and {encoder.recipe.name} reads {limit}: split it over several lines")
    return texts, encoder.encode(texts)


def read_vectors(path: Path, recipe: EncoderRecipe) -> np.ndarray:
    """The vectors of a .npy file, float32 [n, dim]; nothing pickled is loaded.

    Raises `InputError` when the file is missing, is no .npy array of numbers, or cannot hold vectors of `recipe`.
    """
    if not path.is_file():
        raise InputError(f"vectors {path} do not exist or are no file: give a .npy file of shape [n, {recipe.dim}]")
    try:
        with path.open("rb") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"vectors {path} are no whole .npy array of numbers ({error}): write them with numpy.save") from error
    if not np.issubdtype(vectors.dtype, np.floating):
        raise InputError(f"vectors {path} are {vectors.dtype}: expected float32")
    if not len(vectors):
        raise InputError(f"vectors {path} hold none")
    return require_vectors(vectors, recipe)
