"""JSON values by name, on disk: what is read of a corpus need not fit in memory."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lvm.atomic_io import explaining_full_disk


class Spool:
    """JSON values by name, on disk.

    The file has no name in any folder: the operating system frees it when it is closed, or when the process ends for whatever reason.
    """

    def __init__(self, near: Path) -> None:
        """Open an empty spool on the disk that holds `near`, or will hold it."""
        self._near = near
        self._file = TemporaryFile(dir=_writable_folder(near))  # noqa: SIM115 (closed by `close`)
        self._offsets: dict[str, int] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        with explaining_full_disk(self._near):
            self._offsets[name] = self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")

    def __getitem__(self, name: str) -> Any:
        with explaining_full_disk(self._near):  # a read first writes out what is still buffered
            self._file.seek(self._offsets[name])
            return json.loads(self._file.readline())

    def __contains__(self, name: str) -> bool:
        return name in self._offsets

    def __iter__(self) -> Iterator[str]:
        """Names, in the order in which they were stored."""
        return iter(self._offsets)

    def close(self) -> None:
        """Free the space on disk."""
        with suppress(OSError):  # closing writes out the buffer, which a full disk refuses again; nobody reads it any more
            self._file.close()


def _writable_folder(near: Path) -> Path | None:
    """The nearest folder at or above `near` that exists and can be written to; None for the system's temporary folder."""
    folders = [near.absolute(), *near.absolute().parents]
    return next((folder for folder in folders if folder.is_dir() and os.access(folder, os.W_OK)), None)
