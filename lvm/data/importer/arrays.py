"""NumPy arrays, in files of their own or in an .npz archive, a block of rows at a time. Pickled arrays are not loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from lvm.data.importer.block import BLOCK_ROWS
from lvm.errors import InputError


class Archive:
    """The arrays of an .npz file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with ZipFile(path) as archive:
                self.names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        except (BadZipFile, OSError) as error:
            raise InputError(f"{path} is not a complete .npz file ({error}): write it again with numpy.savez") from error

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array."""
        with self._member(name) as (_, shape, _, _):
            return shape

    def whole(self, name: str) -> np.ndarray:
        """An array, at once: for what is small beside the vectors."""
        with explaining_array(f"{self.path}, array {name!r}"), np.load(self.path, allow_pickle=False) as archive:
            found: np.ndarray = archive[name]
            return found

    def blocks(self, name: str, rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
        """An array of numbers, `rows` of its first axis at a time, as float32."""
        with self._member(name) as (file, shape, fortran, dtype):
            what = f"{self.path}, array {name!r}"
            if fortran and len(shape) > 1:
                raise InputError(f"{what} is stored by columns: write it again with numpy.ascontiguousarray")
            size = int(np.prod(shape[1:])) * dtype.itemsize
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                data = file.read(count * size)
                if len(data) < count * size:
                    raise InputError(f"{what} ends after {start} of {shape[0]} rows: copy or write the file again")
                yield as_float32(np.frombuffer(data, dtype).reshape(count, *shape[1:]), what)

    @contextmanager
    def _member(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any]]]:
        """An array's data as a file, its shape, whether it is stored by columns, and its type."""
        with explaining_array(f"{self.path}, array {name!r}"), ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            if dtype.hasobject:
                raise ValueError("an array of objects")
            yield file, shape, fortran, dtype


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy file, mapped into memory."""
    with explaining_array(str(path)):
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return found


def as_float32(array: np.ndarray, what: str) -> np.ndarray:
    """An array of floats as float32; `InputError` for other types."""
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{what} is of type {array.dtype}: give float16, float32 or float64")
    with np.errstate(over="ignore"):  # beyond float32: infinite, and refused as such
        return np.ascontiguousarray(array, np.float32)


@contextmanager
def explaining_array(what: str) -> Iterator[None]:
    """Raise `InputError` for what the library raises at a damaged or pickled array."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            remedy = "it holds pickled objects, which are not loaded: save numbers as floats, and ids by numpy.asarray(ids, dtype=str)"
        else:
            remedy = f"it cannot be read ({error}): copy or write the file again"
        raise InputError(f"{what}: {remedy}") from error
