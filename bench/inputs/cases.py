"""Input that went wrong for somebody, and what becomes of it now.

    python -m bench.inputs.cases FOLDER

FOLDER holds the inputs under the names below. Prints a table: the input, what is expected, what happened, ok or not; exit code 1 when
something is not ok. Reading, cutting and the dataset are the real ones; the vectors are random, since no case is about them.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lvm.data.dataset import Dataset, open_dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.extract import extract
from lvm.data.sources import Reading, by_reason
from lvm.errors import InputError

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\0"


class RandomVectors:
    """The tokenizer and recipe of an encoder, and a random vector for each text."""

    def __init__(self, encoder: Encoder) -> None:
        self.recipe, self.tokenizer, self.dtype, self.group = encoder.recipe, encoder.tokenizer, encoder.dtype, encoder.group

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, float32 [n, dim], the same for the same text."""
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) for text in texts]
        vectors = np.stack([np.random.default_rng(seed).normal(size=self.recipe.dim) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Outcome:
    """What became of an input."""

    refusal: str = ""
    """The sentence, where it was refused."""

    documents: dict[str, list[str]] = field(default_factory=dict)
    """doc_id -> its chunks."""

    tokens: list[int] = field(default_factory=list)
    """Tokens of each chunk."""

    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def chunks(self) -> list[str]:
        """The chunks of all documents."""
        return [chunk for chunks in self.documents.values() for chunk in chunks]

    def told(self) -> str:
        """As the table shows it."""
        if self.refusal:
            return f"refused: {self.refusal[:110]}"
        sums = ", ".join(f"{reason} {count}" for reason, count in by_reason(item["reason"] for item in self.skipped).items())
        return f"{len(self.documents)} documents, {len(self.chunks)} chunks" + (f"; left out: {sums}" if sums else "")


@dataclass(frozen=True)
class Case:
    """One input, and what is expected of it."""

    inputs: tuple[str, ...]
    expected: str
    holds: Callable[[Outcome, Path], bool]
    reading: Reading = field(default_factory=Reading)

    def name(self) -> str:
        """The inputs, and the options with which they are read."""
        columns = [f"--column {name}={column}" for name, column in self.reading.columns.items()]
        return " ".join([*self.inputs, *(["--chunked"] if self.reading.chunked else []), *columns])


def _documents(count: int, left_out: int = 0) -> Callable[[Outcome, Path], bool]:
    return lambda found, folder: len(found.documents) == count and len(found.skipped) == left_out


def _refused(*words: str) -> Callable[[Outcome, Path], bool]:
    return lambda found, folder: bool(found.refusal) and all(word in found.refusal for word in words)


def _lines(folder: Path, name: str) -> list[str]:
    rows = map(json.loads, (folder / name).read_text(encoding="utf-8-sig").splitlines())
    return [" ".join(line.split()) for row in rows for line in row["text"].splitlines() if line.strip()]


def _lines_stay(found: Outcome, folder: Path) -> bool:
    """All but the lines that are over the budget are chunks, and nothing else is but their pieces."""
    lines = _lines(folder, "lower-case-lines.jsonl")
    whole = set(found.chunks) & set(lines)
    pieces = [chunk for chunk in found.chunks if chunk not in whole]
    return len(whole) > 0.7 * len(set(lines)) and all(any(piece in line for line in lines) for piece in pieces)


def _unreadable(found: Outcome, folder: Path) -> bool:
    return "encoder" in (found.refusal or " ".join(item["reason"] for item in found.skipped)) and not found.documents


def _readable(found: Outcome, folder: Path) -> bool:
    """Chunks have tokens for their length; what has not is left out with a reason or cut."""
    pairs = zip(found.chunks, found.tokens, strict=True)
    return bool(found.chunks) and all(n > 0 and len(text) <= min(3000, 60 * n) for text, n in pairs)


def _visible(found: Outcome, folder: Path) -> bool:
    return bool(found.chunks) and min(found.tokens) > 0 and not any(character in text for text in found.chunks for character in INVISIBLE)


def _encodings(found: Outcome, folder: Path) -> bool:
    return len(found.documents) == 7 and all(text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text for text in found.chunks)


def _prose(found: Outcome, folder: Path) -> bool:
    notes = " ".join(found.documents.get("notes.md", []))
    kept, gone = ("heron waits", "H2O", "1901", "first task", "footnote itself", "a map"), ("title:", "|", "<", "print", "http")
    return len(found.documents) == 5 and all(words in notes for words in kept) and not any(words in notes for words in gone)


def _given(found: Outcome, folder: Path) -> bool:
    """The chunks of every document are those of the input, in order."""
    rows = map(json.loads, (folder / "row-per-chunk.jsonl").read_text(encoding="utf-8").splitlines())
    given: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row["doc_id"], row["chunk_id"])):
        given.setdefault(row["doc_id"], []).append(row["text"])
    return found.documents == given


def _six_given(found: Outcome, folder: Path) -> bool:
    table = pq.read_table(folder / "text-list.parquet").to_pylist()
    return found.documents == {row["doc_id"]: row["text"] for row in table}


NAMES = {"doc_id": "id", "text": "content"}
ORDERED = Reading({"chunk_index": "chunk_id"}, chunked=True)

CASES = [
    Case(("lower-case-lines.jsonl",), "a line stays a chunk", _lines_stay),
    Case(("thai.jsonl",), "refused or left out: the encoder cannot read it", _unreadable),
    Case(("emoji.jsonl",), "refused or left out: the encoder cannot read it", _unreadable),
    Case(("hex-lines.jsonl",), "no chunk of one unknown token for 1,200 characters", _readable),
    Case(("zero-width.jsonl",), "no chunk without a token, no invisible character", _visible),
    Case(("utf-16",), "7 documents, every encoding recognised", _encodings),
    Case(("parquet-shards-with-card",), "6 documents, the README listed", _documents(6, 1)),
    Case(("jsonl-shards",), "3 documents", _documents(3)),
    Case(("suffixes",), "11 files read, a copy listed", _documents(11, 1)),
    Case(("same-names/a", "same-names/b"), "6 documents, told apart", _documents(6)),
    Case(("markdown",), "prose only", _prose),
    Case(("source-object.jsonl",), "refused, naming 'source'", _refused("line 1", "'source' is an object")),
    Case(("null-text.jsonl",), "6 documents, 1 listed", _documents(6, 1)),
    Case(("numeric-id.jsonl",), "6 documents", _documents(6)),
    Case(("content-field.jsonl",), "refused, naming the fields", _refused("'content', 'id'", "--column")),
    Case(("content-field.jsonl",), "6 documents", _documents(6), Reading(NAMES)),
    Case(("row-per-chunk.jsonl",), "refused, naming the fields", _refused("chunk_index", "chunk_id"), Reading(chunked=True)),
    Case(("row-per-chunk.jsonl",), "the chunks of the input", _given, ORDERED),
    Case(("text-list.parquet",), "refused, naming --chunked", _refused("a list", "--chunked")),
    Case(("text-list.parquet",), "the chunks of the input", _six_given, Reading(chunked=True)),
    Case(("bom.jsonl",), "6 documents", _documents(6)),
    Case(("gzip-named.jsonl",), "6 documents", _documents(6)),
    Case(("array.jsonl",), "6 documents", _documents(6)),
]

IMPORTS: list[tuple[str, str, Callable[[Outcome, Path], bool]]] = [
    ("own-vectors/chunks.parquet", "6 documents, 72 vectors", lambda found, folder: len(found.chunks) == 72 and len(found.documents) == 6),
    ("own-vectors/old.npz", "windows of zeros: refused, as vectors without a direction", lambda found, folder: "of zeros" in found.refusal),
]
"""Vectors that exist, what is expected of them, and how that is told."""


def run(case: Case, folder: Path, encoder: Any, out: Path) -> Outcome:
    """Extract the inputs of `case`; what became of them."""
    try:
        extract([str(folder / name) for name in case.inputs], out, encoder, reading=case.reading)
        return _outcome(open_dataset(out))
    except InputError as error:
        return Outcome(refusal=str(error).replace(f"{folder}/", ""))


def run_import(name: str, folder: Path, encoder: Any, out: Path) -> Outcome:
    """Import the vectors of a file by the command, with a recipe that is declared for them; what became of them."""
    recipe = {field: "0" * 64 if len(str(value)) == 64 else value for field, value in encoder.recipe.model_dump().items()}
    file = folder / name
    found = np.load(file)["target_vectors"][0] if file.suffix == ".npz" else pq.read_table(file)["embedding"][0].as_py()
    recipe |= {"name": "own", "dim": len(found), "normalize": False}
    out.parent.joinpath("recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "lvm", "import", str(file), "--recipe", str(out.parent / "recipe.json"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return Outcome(refusal=" ".join(done.stderr.split())[-300:] or "no message")
    return _outcome(open_dataset(out))


def _outcome(dataset: Dataset) -> Outcome:
    documents: dict[str, list[str]] = {}
    for doc_id, text in zip(*(dataset.table.column(name).to_pylist() for name in ("doc_id", "text")), strict=True):
        documents.setdefault(doc_id, []).append(text)
    return Outcome("", documents, dataset.table.column("n_tokens").to_pylist(), dataset.manifest.skipped)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    encoder = RandomVectors(load_encoder("minilm", "cpu"))
    failed = 0
    print("| input | expected | what happened | |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as parent:
        for number, case in enumerate(CASES):
            found = run(case, folder, encoder, Path(parent) / str(number))
            ok = case.holds(found, folder)
            failed += not ok
            print(f"| {case.name()} | {case.expected} | {found.told()} | {'ok' if ok else 'NOT OK'} |", flush=True)
        for number, (name, expected, holds) in enumerate(IMPORTS):
            found = run_import(name, folder, encoder, Path(parent) / f"import-{number}")
            ok = holds(found, folder)
            failed += not ok
            print(f"| lvm import {name} | {expected} | {found.told()} | {'ok' if ok else 'NOT OK'} |", flush=True)
    count = len(CASES) + len(IMPORTS)
    print(f"\n{count - failed} of {count} as expected")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
