"""The files of a source, wherever they lie: on a local disk, or behind a URI that pyarrow knows (s3://, gs://, abfs://, hdfs://).

Compression is recognised by the first bytes of a file, not by its name.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pyarrow import fs

from lvm.data.sources.items import Excluded, Skipped, is_unicode
from lvm.errors import InputError

MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
PACKED = (".gz", ".bz2", ".zst", ".zstd")
"""Suffixes of compressed files. They are taken off before the suffix says what a file holds; whether it is compressed, its bytes say."""

TOOLS = {"node_modules", "__pycache__", "_SUCCESS", "_metadata", "_common_metadata"}
"""Folders and files that tools put beside documents."""


class DamagedError(Exception):
    """A file cannot be read to its end; the message says why."""


@dataclass(frozen=True)
class File:
    """A file of a source."""

    path: str
    """As its file system knows it."""

    name: str
    """Relative to the source, with slashes; its own name where the source is a file."""

    shown: str
    """As messages name it."""

    system: fs.FileSystem

    @property
    def suffix(self) -> str:
        """What the name says that the file holds, in lower case: ".txt" of B.TXT and of b.txt.gz."""
        suffixes = [suffix.lower() for suffix in PurePosixPath(self.name).suffixes]
        while suffixes and suffixes[-1] in PACKED:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @property
    def stem(self) -> str:
        """Its name without folders and suffixes."""
        return PurePosixPath(self.name).name.split(".")[0]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The content, decompressed, as a stream. Raises `DamagedError` when it cannot be read to its end."""
        try:
            with self.system.open_input_stream(self.path, compression=None, buffer_size=1 << 16) as raw:
                start = raw.read(4)
            codec = next((codec for magic, codec in MAGIC.items() if start.startswith(magic)), None)
            with self.system.open_input_stream(self.path, compression=codec, buffer_size=1 << 16) as stream:
                yield io.BufferedReader(stream, 1 << 16)
        except OSError as error:
            raise DamagedError(str(error).split(" Detail:")[0]) from error

    def read(self) -> bytes:
        """The whole content, decompressed. Raises `DamagedError`."""
        with self.open() as stream:
            return stream.read()


def without_secrets(spec: str) -> str:
    """`spec` without the key and the secret that a URI can hold: messages and logs show it."""
    return re.sub(r"//[^/@]*@", "//***@", spec)


def is_uri(spec: str) -> bool:
    """Whether `spec` is a URI and no local path."""
    return re.match(r"[a-z][a-z0-9+.-]+://", spec, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Place:
    """Where a source is: a folder or a file of a file system."""

    spec: str
    path: str
    system: fs.FileSystem
    is_folder: bool

    @property
    def name(self) -> str:
        """Its own name: the collection of the documents in a folder."""
        return PurePosixPath(self.path).name

    def file(self) -> File:
        """The file that the source is."""
        return File(self.path, self.name, without_secrets(self.spec), self.system)

    def within(self, path: str) -> File:
        """The file of the folder that is at `path`, relative to it."""
        shown = f"{without_secrets(self.spec).rstrip('/')}/{path}"
        return File(f"{self.path}/{path}", path, shown, self.system)

    def walk(self) -> Iterator[File | Skipped]:
        """Every file below the folder, in order of paths; and what is left out of the walk."""
        found = list(_walk_local(Path(self.path)) if isinstance(self.system, fs.LocalFileSystem) else self._walk_remote())
        for path, left_out in sorted(found, key=lambda pair: PurePosixPath(pair[0]).parts):
            yield left_out or self.within(path)

    def _walk_remote(self) -> Iterator[tuple[str, Skipped | None]]:
        hidden: set[str] = set()
        for info in self.system.get_file_info(fs.FileSelector(self.path, recursive=True)):
            path = info.path[len(self.path) :].lstrip("/")
            parts = PurePosixPath(path).parts
            at = next((at for at, part in enumerate(parts, 1) if _by_tools(part)), None)
            if at is not None:
                hidden.add("/".join(parts[:at]))
            elif info.type == fs.FileType.File:
                yield path, None
        yield from ((path, Excluded(path, _by_tools(path.rsplit("/")[-1]) or "")) for path in hidden)


def find_place(spec: str) -> Place | None:
    """The folder or file that `spec` names, a path or a URI; None when there is none. `InputError` when it cannot be reached."""
    if not is_uri(spec):
        path = os.path.abspath(spec)
        return Place(spec, path, fs.LocalFileSystem(), os.path.isdir(path)) if os.path.exists(path) else None
    try:
        system, path = fs.FileSystem.from_uri(spec)
        found = system.get_file_info(path.rstrip("/"))
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"source {without_secrets(spec)!r} cannot be reached: {without_secrets(str(error))}") from error
    if found.type == fs.FileType.NotFound:
        return None
    return Place(spec, path.rstrip("/"), system, found.type == fs.FileType.Directory)


def _by_tools(name: str) -> str | None:
    """Why no document is looked for under this name."""
    if name.startswith("."):
        return "hidden"
    return "made by a tool, not a document" if name in TOOLS else None


def _walk_local(root: Path) -> Iterator[tuple[str, Skipped | None]]:
    """Paths below `root`, with the reason where one is left out. What links lead to is read once, under its own path first."""
    seen: set[tuple[int, int]] = set()
    links = [""]  # the root, and links that are found on the way
    for path in links:
        try:
            new = _is_new(os.stat(root / path), seen)
        except OSError:
            yield path, Skipped(path, "link that leads nowhere")
            continue
        if not new:
            yield path, Excluded(path, "link to what is read already")
        elif (root / path).is_dir():
            yield from _below(root, path, seen, links)
        else:
            yield path, None


def _below(root: Path, folder: str, seen: set[tuple[int, int]], links: list[str]) -> Iterator[tuple[str, Skipped | None]]:
    try:
        entries = list(os.scandir(root / folder))
    except OSError as error:
        yield folder, Skipped(f"{folder}/", f"folder that cannot be opened: {error.strerror}")
        return
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        reason = _by_tools(entry.name)
        if not is_unicode(entry.name):
            yield path, Skipped(ascii(path), "broken UTF-8 in the file's name")
        elif reason:
            yield path, Excluded(path, reason)
        elif entry.is_symlink():
            links.append(path)
        elif not (entry.is_dir() or entry.is_file()):
            yield path, Skipped(path, "no file: a device, socket or pipe")
        elif not _is_new(entry.stat(), seen):
            yield path, Excluded(path, "link to what is read already")
        elif entry.is_dir():
            yield from _below(root, path, seen, links)
        else:
            yield path, None


def _is_new(found: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    """Whether this file or folder was not met before. From now on it was."""
    identity = (found.st_dev, found.st_ino)
    new = identity not in seen
    seen.add(identity)
    return new
