"""What a source yields: documents, and whatever is left out, so that nothing disappears unseen."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lvm.errors import InputError


@dataclass(frozen=True)
class Document:
    """One document: `doc_id` is unique in the corpus, `source` names its collection."""

    doc_id: str
    source: str
    text: str

    pieces: tuple[str, ...] | None = None
    """Its chunks, where the input was cut already; `text` then holds them joined by line breaks."""


@dataclass(frozen=True)
class Piece:
    """One chunk of a document that was cut already, from a table with a row a chunk."""

    doc_id: str
    source: str
    text: str
    index: int


@dataclass(frozen=True)
class Skipped:
    """A file, row or document that is left out, and the reason. The manifest lists it.

    What two reasons have in common stands before a colon: "duplicate: of a.txt".
    """

    doc_id: str
    reason: str


class Excluded(Skipped):
    """A `Skipped` that no rule was meant to read, such as a hidden folder. It does not count as a loss."""


@dataclass(frozen=True)
class IgnoredField:
    """A field of the input that the pipeline does not read. The manifest lists it."""

    name: str


@dataclass(frozen=True)
class OtherEncoding:
    """A file that is not UTF-8 was read in an encoding that was recognised by its bytes. The manifest counts it."""

    encoding: str


Item = Document | Piece | Skipped | IgnoredField | OtherEncoding


class Unfit(InputError):
    """A file whose first record shows that it holds no documents. A folder leaves it out, with this as the reason."""


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8. JSON escapes and file names can contain half a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def by_reason(reasons: Iterable[str]) -> dict[str, int]:
    """How often each kind of reason occurs, the most frequent first. What stands after a colon tells one case from another."""
    return dict(Counter(reason.split(":")[0] for reason in reasons).most_common())
