"""Documents that were cut before: their chunks are read from a dataset that holds them, instead of being made again.

Cutting costs about a twentieth of encoding: for a corpus that grew by a twentieth, as much as encoding what is new. Beside a dataset
stands which text each of its documents was cut from. That file can be deleted like every derived one; the documents are cut again then.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lvm.atomic_io import digest_json
from lvm.data.corpus import Corpus
from lvm.data.derived import derived_file, derived_prefix, is_intact
from lvm.data.encoders import Encoder
from lvm.data.manifest import Manifest
from lvm.data.reuse import BATCH_ROWS, require_reusable

LIBRARIES = ("sentencex", "semantic-text-splitter", "tokenizers")
CUTTING = b"lvm.cutting"


def cutting_id(corpus: Corpus, encoder: Encoder) -> str:
    """The identity of all that decides into which chunks a text is cut: settings, tokenizer, libraries, and the code of this package."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(file.read_bytes())
    tokenizer = hashlib.sha256(encoder.tokenizer.to_str().encode()).hexdigest()
    return digest_json([corpus.chunker.config.model_dump(), tokenizer, [version(name) for name in LIBRARIES], code.hexdigest()])


def write_cuts(path: Path, manifest: Manifest, corpus: Corpus, doc_ids: Iterable[str], encoder: Encoder) -> None:
    """Note from which text each of the dataset's documents was cut. `doc_ids` are those of which no piece was left out."""
    derived_file(_file(path, manifest), partial(_write, {doc_id: corpus.kept[doc_id] for doc_id in doc_ids}, cutting_id(corpus, encoder)))


def take_cuts(corpus: Corpus, datasets: Iterable[Path], encoder: Encoder) -> None:
    """Give the documents of `corpus` the chunks that a dataset holds of the same text, cut by the same rules, until all have some.

    Raises `InputError` as `require_reusable` does.
    """
    cutting = cutting_id(corpus, encoder)
    wanted = {doc_id: sha256 for doc_id, sha256 in corpus.kept.items() if doc_id not in corpus.chunks}
    for path in datasets:
        manifest = require_reusable(path, encoder)
        texts = _read(_file(path, manifest), cutting)
        same = [doc_id for doc_id, sha256 in texts.items() if wanted.get(doc_id) == sha256]
        for doc_id, chunks in _documents(path, manifest, same):
            corpus.chunks[doc_id] = [chunks, []]
            del wanted[doc_id]
        if not wanted:
            break


def _file(path: Path, manifest: Manifest) -> Path:
    return path / "derived" / f"{derived_prefix(manifest.digest)}cuts.parquet"


def _write(texts: Mapping[str, str], cutting: str, file: Path) -> None:
    columns = pa.schema([("doc_id", pa.string()), ("text_sha256", pa.string())], metadata={CUTTING: cutting})
    pq.write_table(pa.table([list(texts), list(texts.values())], schema=columns), file)


def _read(file: Path, cutting: str) -> dict[str, str]:
    """doc_id -> SHA-256 of its text, of the documents that were cut by these rules; none where the file is missing or damaged."""
    if not is_intact(file) or (pq.read_metadata(file).metadata or {}).get(CUTTING) != cutting.encode():
        return {}
    table = pq.read_table(file)
    return dict(zip(table.column("doc_id").to_pylist(), table.column("text_sha256").to_pylist(), strict=True))


def _documents(path: Path, manifest: Manifest, doc_ids: Collection[str]) -> Iterator[tuple[str, list[list[str | int]]]]:
    """These documents of a dataset, one at a time: the id, and text and number of tokens of each chunk."""
    wanted = pa.array(doc_ids, pa.string())

    def rows() -> Iterator[tuple[str, str, int]]:
        for shard in manifest.shards if doc_ids else []:
            with pq.ParquetFile(path / shard.file) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=["doc_id", "text", "n_tokens"]):
                    kept = batch.filter(pc.is_in(batch.column("doc_id"), wanted))
                    yield from zip(*(kept.column(name).to_pylist() for name in ("doc_id", "text", "n_tokens")), strict=True)

    for doc_id, chunks in groupby(rows(), key=itemgetter(0)):
        yield doc_id, [[text, n_tokens] for _, text, n_tokens in chunks]
