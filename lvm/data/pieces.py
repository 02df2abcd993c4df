"""Text that is cut already, a row a chunk: the rows of a document brought together and into order."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from lvm.data.sources import Document, Item, Piece
from lvm.data.spool import Spool
from lvm.errors import InputError


def join_pieces(items: Iterable[Item], near: Path) -> Iterator[Item]:
    """The items with a document in place of its `Piece`s, after all others; a document's rows may stand anywhere in the source.

    The texts wait on the disk of `near`. Raises `InputError` when two rows of a document have one index.
    """
    rows: dict[str, list[tuple[int, str]]] = {}  # doc_id -> index of each piece, and where its text is
    sources: dict[str, str] = {}
    with closing(Spool(near)) as texts:
        for number, item in enumerate(items):
            if isinstance(item, Piece):
                texts[str(number)] = item.text
                rows.setdefault(item.doc_id, []).append((item.index, str(number)))
                sources.setdefault(item.doc_id, item.source)
            else:
                yield item
        for doc_id, found in rows.items():
            found.sort(key=lambda pair: pair[0])
            twice = next((index for (index, _), (after, _) in pairwise(found) if index == after), None)
            if twice is not None:
                raise InputError(
                    f"doc_id {doc_id!r}: two chunks have the index {twice}; name the column that puts them in order by "
                    "--column chunk_index=NAME, or --column chunk_index=# for the order of the rows"
                )
            pieces = tuple(texts[name] for _, name in found)
            yield Document(doc_id, sources[doc_id], "\n".join(pieces), pieces)
