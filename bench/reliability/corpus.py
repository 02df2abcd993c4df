"""A small corpus of real text, for the scripts that kill whatever works on it."""

import json
from pathlib import Path

from lvm.data.sources import Document, iter_source


def small_corpus(file: Path, documents: int, paragraphs: int) -> Path:
    """Write the first `paragraphs` of every fifth State of the Union address, `documents` of them, as JSON lines."""
    found = [item for item in iter_source("builtin:sotu") if isinstance(item, Document)]
    with file.open("w", encoding="utf-8") as lines:
        for document in found[::5][:documents]:
            kept = [p for p in document.text.splitlines() if p.strip()][:paragraphs]
            lines.write(json.dumps({"doc_id": document.doc_id, "text": "\n".join(kept)}) + "\n")
    return file
