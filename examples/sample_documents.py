"""Forty short text files to try the examples on; a folder of your own does as well."""

from itertools import islice
from pathlib import Path

from lvm.data.sources import Document, iter_source

DOCUMENTS, PARAGRAPHS = 40, 14


def write_documents(folder: Path) -> Path:
    """Write the beginnings of every fifth State of the Union address below `folder`, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    addresses = [item for item in iter_source("builtin:sotu") if isinstance(item, Document)]
    for address in addresses[::5][:DOCUMENTS]:
        paragraphs = islice(filter(str.strip, address.text.splitlines()), PARAGRAPHS)
        (folder / f"{address.doc_id}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    return folder
