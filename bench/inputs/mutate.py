"""Random mutations of small inputs, read and cut as extraction does, without encoding.

    python -m bench.inputs.mutate --count 10000 --seed 1

Each case takes a small input of one format, changes some of its bytes by a generator with a seed, and reads it. Whatever the bytes are:

- nothing but `InputError` is raised, and none takes longer than `LIMIT_S`;
- no chunk is without a token;
- counts add up: every document that the source gave is kept, or listed as left out.

Prints a line for each case that breaks this, with what repeats it, and the sums.
"""

import argparse
import bz2
import gzip
import json
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lvm.config import ChunkerConfig
from lvm.data import corpus
from lvm.data.chunker import Chunker
from lvm.data.encoders import load_encoder
from lvm.data.sources import Document, Excluded, Piece, Reading, Skipped
from lvm.errors import InputError

LIMIT_S = 20.0
TEXTS = (
    "The river rises in spring. A young carpenter measures the school.",
    "El niño comió una piña.\nDer Bär läuft über die Straße.\n\nNobody moved; the clock had stopped.",
    "a\u200bb\u00ad zero width.\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<p>HTML &amp; more.</p>\n\n> quoted\n\n```\ncode\n```\n",
)
ROWS = [{"doc_id": f"d{i}", "text": text, "source": "notes", "chunk_index": i} for i, text in enumerate(TEXTS * 2)]
ROWS[3]["doc_id"], ROWS[4]["text"], ROWS[5]["text"] = "d0", None, ""


def _table() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


def _inputs() -> dict[str, bytes]:
    """A small input of each format: name -> content."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    text = "---\ntitle: x\n---\n\n# Title\n\n" + "\n\n".join(TEXTS)
    page = f"<html><head><title>T</title></head><body><h1>H</h1><p>{'</p><p>'.join(TEXTS)}</p></body></html>"
    table = "doc_id,text\n" + "".join(f'{row["doc_id"]},"{row["text"]}"\n' for row in ROWS)
    return {
        "a.txt": text.encode(),
        "utf16.txt": TEXTS[1].encode("utf-16-le"),
        "a.md": text.encode(),
        "a.rst": ("Title\n=====\n\n.. note:: A note.\n\n" + text).encode(),
        "a.html": page.encode(),
        "a.jsonl": lines.encode(),
        "utf16.jsonl": lines.encode("utf-16"),
        "a.json": json.dumps(ROWS).encode(),
        "a.csv": table.encode(),
        "a.tsv": table.replace(",", "\t").encode(),
        "a.parquet": _table(),
        "a.jsonl.gz": gzip.compress(lines.encode(), mtime=0),
        "a.txt.bz2": bz2.compress(text.encode()),
        "a.jsonl.zst": pa.Codec("zstd").compress(lines.encode()).to_pybytes(),
    }


SPLICES = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b"{", b"}", b"[" * 40, b"<", b"]]>", b"&#0;", b"\\ud800", b"null",
    b"9" * 5000, b"NaN", b"\xe2\x80\x8b" * 9, b"\x1f\x8b", b"BZh9", b"\x28\xb5\x2f\xfd", b"PAR1", b"   ", b"> " * 50, b"``", b"|",
    b".. x::",
)  # fmt: skip


def mutated(content: bytes, draw: random.Random) -> bytes:
    """`content` with one to six changes: bytes flipped, removed, doubled, moved, cut off, or something awkward put in."""
    found = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        at, length = draw.randrange(len(found) + 1), draw.choice((1, 1, 2, 8, 60))
        match draw.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = found[at : at + length]
            case 3:
                other = draw.randrange(len(found) + 1)
                found[other:other] = found[at : at + length]
            case 4 if draw.random() < 0.3:
                del found[at:]
            case _:
                found[at:at] = draw.choice(SPLICES)
    return bytes(found)


class Watched:
    """Counts what sources give on the way into a corpus."""

    def __init__(self) -> None:
        self.given: Counter[str] = Counter()
        read = corpus.join_pieces

        def counting(items: Any, near: Path) -> Iterator[Any]:
            for item in read(items, near):
                self.given[type(item).__name__] += 1
                yield item

        corpus.join_pieces = counting


def check(folder: Path, chunker: Chunker, reading: Reading, watched: Watched) -> str:
    """Read and cut what is in `folder`; the outcome. Raises `AssertionError` when counts do not add up or a chunk has no token."""
    watched.given.clear()
    try:
        with corpus.read_corpus([str(folder)], chunker, folder.parent, None, reading) as found:
            given, kept = watched.given, len(found.kept)
            assert kept + len(found.skipped) == given[Document.__name__] + given[Skipped.__name__] + given[Excluded.__name__], "counts"
            assert not given[Piece.__name__], "a piece became no document"
            chunks = [chunk for document in found.chunked() for chunk in document.chunks]
            assert all(chunk.n_tokens > 0 and chunk.text.strip() for chunk in chunks), "a chunk without a token"
            assert all(chunk.n_tokens <= chunker.config.max_tokens for chunk in chunks), "a chunk over the budget"
            return "read, something left out" if found.skipped else "read whole"
    except InputError as error:
        assert "\n" not in str(error).strip() or len(str(error)) < 2000, "more than a sentence"
        return "refused"


def main() -> None:
    """Run the cases and print what broke, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="Repeat this one only.")
    asked = parser.parse_args()
    inputs, chunker, watched = _inputs(), Chunker(ChunkerConfig(), load_encoder("minilm", "cpu").tokenizer), Watched()
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest, began = 0.0, time.monotonic()
    numbers = range(asked.count) if asked.case is None else [asked.case]
    for number in numbers:
        draw = random.Random(f"{asked.seed} {number}")
        name = draw.choice(list(inputs))
        reading = Reading(chunked=draw.random() < 0.2, keep_going=draw.random() < 0.8)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "in"
            folder.mkdir()
            (folder / name).write_bytes(mutated(inputs[name], draw))
            (folder / "sound.jsonl").write_bytes(b'{"doc_id": "s", "text": "Sound text. It is read.", "chunk_index": 0}\n')
            start = time.monotonic()
            try:
                outcome = check(folder, chunker, reading, watched)
            except Exception:
                outcome = "BROKEN"
                print(f"seed {asked.seed}, case {number}, {name}:\n{traceback.format_exc(limit=-4)}", flush=True)
            took = time.monotonic() - start
            slowest = max(slowest, took)
            if took > LIMIT_S:
                outcome = "SLOW"
                print(f"seed {asked.seed}, case {number}, {name}: {took:.0f} s", flush=True)
        outcomes[name, outcome] += 1
    kinds = sorted({outcome for _, outcome in outcomes})
    print(f"{len(numbers):,} cases, seed {asked.seed}, {time.monotonic() - began:.0f} s, the slowest {slowest:.2f} s")
    print("| input | " + " | ".join(kinds) + " |\n|---" * 1 + "|---" * len(kinds) + "|")
    for name in inputs:
        print(f"| {name} | " + " | ".join(str(outcomes[name, kind]) for kind in kinds) + " |")
    print("| all | " + " | ".join(str(sum(outcomes[name, kind] for name in inputs)) for kind in kinds) + " |")


if __name__ == "__main__":
    main()
