"""Durable writes: a file that a later stage reads appears complete, or not at all; and digests, by which a reader knows that it still is.

A file is written beside its destination, flushed to the disk and renamed over it, and the folder is flushed too. Neither a killed
process nor a power cut leaves half a file under the final name.
"""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lvm.errors import InputError


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full. Libraries in other languages raise errors of their own, known by their text."""
    words = ("No space left", "StorageFull", "disk is full")
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(word in str(error) for word in words)


@contextmanager
def explaining_full_disk(path: Path) -> Iterator[None]:
    """Raise an `InputError` that names `path` for any error of the block that says that the disk is full."""
    try:
        yield
    except Exception as error:
        if is_full(error) and not isinstance(error, InputError):
            raise InputError(f"no space left to write {path}: free some and run the same command again") from error
        raise


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it over `path` when the block ends without an error.

    After an error the temporary file is removed and the old file at `path` is still there. Raises `InputError` when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    with explaining_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.chmod(0o644)  # safetensors makes its files private, but other users may serve them
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, durably."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, durably. `ValueError` for NaN and infinity, which are not JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


DIGEST_FIELD = "fields_sha256"
"""Field of a JSON object that holds the digest of all its other fields."""


def write_json_with_digest(path: Path, values: dict[str, Any]) -> None:
    """Write an object with the digest of its fields as a further one, for `verified_fields` to find alterations by."""
    write_json(path, values | {DIGEST_FIELD: _digest_of_fields(values)})


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file. Raises `InputError`, which ends in `remedy`, when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): {remedy}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    """A number; `ValueError` when it is greater than a float can be."""
    if math.isinf(float(text)):
        _refuse_constant(text)
    return float(text)


def verified_fields(path: Path, values: dict[str, Any], remedy: str, required: bool = True) -> dict[str, Any]:
    """The fields of an object that was read from `path`, without their digest.

    Raises `InputError`, which names `path` and ends in `remedy`, when the fields are not those that were written. An object without a
    digest passes only where none is `required`, as with files of versions that wrote none.
    """
    fields = {name: value for name, value in values.items() if name != DIGEST_FIELD}
    if DIGEST_FIELD not in values and not required:
        return fields
    if values.get(DIGEST_FIELD) != _digest_of_fields(fields):
        raise InputError(f"{path}: field '{DIGEST_FIELD}' is not the digest of the other fields, so one of them was altered: {remedy}")
    return fields


def _digest_of_fields(values: dict[str, Any]) -> str:
    return digest_json(json.loads(json.dumps(values)))  # as they are read: lists for tuples, strings for the keys of numbers


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other process and thread that calls this with `path` out of the block; they wait. The lock ends with its process.

    The file at `path` holds nothing and stays: deleting it would let two in, one by the old file and one by the new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def publish_folder(source: Path, link: Path, version: str, leave_out: str = "") -> Path:
    """Copy the folder `source` to `versions/<version>` beside `link`, then point `link` to the copy. Returns the copy.

    `leave_out` names an entry of the folder that is not copied. The link is replaced by one rename: a reader of `link` finds the old
    folder or the new one, never a mixture and never nothing.
    """
    target = link.parent / "versions" / version
    if not target.exists():
        temporary = target.with_name(f".{version}.{uuid.uuid4().hex[:8]}.tmp")
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(leave_out))
        for file in temporary.rglob("*"):
            sync(file)
        os.replace(temporary, target)
        sync(target.parent)
    pointer = link.with_name(f".{link.name}.{uuid.uuid4().hex[:8]}.tmp")
    pointer.symlink_to(Path("versions") / version)
    os.replace(pointer, link)
    sync(link.parent)
    return target


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_hashed: dict[Path, tuple[tuple[int, ...], str]] = {}


def sha256_once(path: Path) -> str:
    """SHA-256 of a file, hashed once in a process, and again when the file has changed: its size, its times or its inode."""
    found = path.stat()
    state = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    hashed_state, sha256 = _hashed.get(path.resolve(), (None, ""))
    if hashed_state != state:
        sha256 = sha256_file(path)
        _hashed[path.resolve()] = state, sha256
    return sha256


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form: the identity of a configuration."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
