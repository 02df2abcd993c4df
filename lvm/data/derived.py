"""Files that are computed from a dataset and read again later, each verified by its digest before it is read.

Beside every such file stands its SHA-256, in the form that `sha256sum --check` reads. A file that is missing, truncated or altered is made
again: nothing is lost by that, and nothing is concluded from wrong numbers.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from lvm.atomic_io import locked, replacing, sha256_file, sha256_once, write_text

DERIVED_VERSION = 3
"""Raised when what is computed from a dataset changes its name or its meaning. Files of other versions are not read."""

DERIVED_NAME = re.compile(r"\.?[0-9a-f]{12}-v\d+-")
"""How the name of a derived file begins, of whichever version."""

log = logging.getLogger("lvm.data")


def derived_file(file: Path, make: Callable[[Path], None]) -> Path:
    """Return `file`, with exactly the bytes that were written into it.

    `make` writes the content to the path that it is given. It is called when the file or its digest is missing, or when they disagree. A
    file that is there and is made again is logged as a warning. Of several processes or threads that need the file at once, one makes it
    and the others wait.
    """
    if is_intact(file):
        return file
    with locked(file.with_name(f".{file.name}.lock")):
        if is_intact(file):  # made by another one in the meantime
            return file
        if file.exists():
            log.warning("%s is not what was written there, or its digest is missing: it is made again", file)
        with replacing(file) as temporary:
            make(temporary)
            sha256 = sha256_file(temporary)
        write_text(_digest_file(file), f"{sha256}  {file.name}\n")
    return file


def is_intact(file: Path) -> bool:
    """Whether the file has the digest that stands beside it. Hashes a file once in a process, and again after it has changed."""
    try:
        recorded = _digest_file(file).read_text(encoding="utf-8").split()
        return recorded[:1] == [sha256_once(file)]
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def outdated_files(folder: Path, dataset_digest: str) -> list[Path]:
    """Files in a dataset's `derived` folder that this version never reads: of another version, or of a dataset that was there before."""
    files = [file for file in folder.glob("*") if DERIVED_NAME.match(file.name)]
    return sorted(file for file in files if not file.name.removeprefix(".").startswith(derived_prefix(dataset_digest)))


def derived_prefix(dataset_digest: str) -> str:
    """How the names of all files begin that are derived from the dataset with this digest."""
    return f"{dataset_digest[:12]}-v{DERIVED_VERSION}-"


def _digest_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")
