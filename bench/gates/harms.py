"""What can go wrong with a corpus, each at several strengths. A harm is a function of a corpus with splits: it returns the harmed one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bench.gates.corpora import Document, Pool, divided

Harm = Callable[[Pool, list[Document], float, np.random.Generator], list[Document]]


def sentences_shuffled(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """The sentences of that share of the documents in random order. A long sentence stays whole: its pieces stay neighbours."""
    return _reordered(documents, share, rng, lambda doc: _shuffled(doc.text, pool.sentence[doc.text], rng))


def chunks_shuffled(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """The chunks of that share of the documents in random order."""
    return _reordered(documents, share, rng, lambda doc: rng.permutation(doc.text))


def paragraphs_shuffled(pool: Pool, documents: list[Document], sentences: float, rng: np.random.Generator) -> list[Document]:
    """Every document cut into paragraphs of so many sentences, and these in random order."""
    return _reordered(documents, 1.0, rng, lambda doc: _shuffled(doc.text, pool.sentence[doc.text] // int(sentences), rng))


def documents_doubled(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """A second copy of that share of the documents under another name, in a split of its own: across splits and inside one."""
    copies = [replace(documents[i], name=f"{documents[i].name}-copy", split=_split(rng)) for i in _some(documents, share, rng)]
    return sorted([*documents, *copies], key=lambda doc: doc.name)


def copies_in_one_split(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """The same, and each copy in the split of its original, as extraction would put them."""
    copies = [replace(documents[i], name=f"{documents[i].name}-copy") for i in _some(documents, share, rng)]
    return sorted([*documents, *copies], key=lambda doc: doc.name)


def text_twice(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """That share of the documents followed by themselves within the document."""
    return _reordered(documents, share, rng, lambda doc: np.tile(doc.text, 2))


def chunks_exchanged(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """That share of the chunks exchanged across documents, with their vectors: their contexts are those of other chunks."""
    return _exchanged(documents, ("text", "vector"), share, rng)


def vectors_exchanged(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """The vectors of that share of the chunks exchanged across documents; the texts stay."""
    return _exchanged(documents, ("vector",), share, rng)


def evaluation_exchanged(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """The same as `chunks_exchanged`, among the chunks of validation and test documents alone."""
    touched = _exchanged([doc for doc in documents if doc.split != "train"], ("text", "vector"), share, rng)
    return sorted([*[doc for doc in documents if doc.split == "train"], *touched], key=lambda doc: doc.name)


def off_by_rows(pool: Pool, documents: list[Document], rows: float, rng: np.random.Generator) -> list[Document]:
    """Every vector stands so many rows after its text."""
    shifted = np.roll(np.concatenate([doc.vector for doc in documents]), int(rows))
    return _split_up(documents, {"vector": shifted})


def source_leaked(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """One kind of five has its documents in train and, for that share of them, in test as well.

    The kinds of the corpus are grouped into five sources; the one with the most documents that is not the largest is taken.
    """
    kinds, counts = np.unique([doc.kind for doc in documents], return_counts=True)
    leaked = kinds[np.argsort(counts)][-2] if len(kinds) > 1 else kinds[0]
    own = [doc for doc in documents if doc.kind == leaked]
    kept = [doc if doc.kind != leaked else replace(doc, split="train") for doc in documents]
    copies = [replace(own[i], name=f"{own[i].name}-copy", split="test") for i in _some(own, share, rng)]
    return sorted([*kept, *copies], key=lambda doc: doc.name)


def constant_vectors(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """That share of the chunks, at random, has the vector of one and the same text, as an encoder gives for what it failed to read."""
    vectors = np.concatenate([doc.vector for doc in documents])
    hit = rng.random(len(vectors)) < share
    vectors[hit] = vectors[0]
    return _split_up(documents, {"vector": vectors})


def as_it_is(pool: Pool, documents: list[Document], share: float, rng: np.random.Generator) -> list[Document]:
    """Nothing: the honest corpus."""
    return documents


HARMS: dict[Harm, Sequence[float]] = {
    as_it_is: (0,),
    sentences_shuffled: (1, 0.75, 0.5, 0.25),
    chunks_shuffled: (1,),
    paragraphs_shuffled: (2, 3, 5),
    documents_doubled: (0.5, 0.2, 0.1),
    copies_in_one_split: (0.5, 0.2),
    text_twice: (0.5, 0.2, 0.1),
    chunks_exchanged: (1, 0.5, 0.1),
    evaluation_exchanged: (1, 0.5, 0.1),
    vectors_exchanged: (0.1, 0.01),
    off_by_rows: (1,),
    source_leaked: (1, 0.5, 0.2),
    constant_vectors: (0.2, 0.05, 0.01),
}
"""Every harm with its strengths, the strongest first. The strength is a share, of paragraphs a number of sentences."""


def harmed(pool: Pool, documents: Sequence[Document], harm: Harm, strength: float, rng: np.random.Generator) -> list[Document]:
    """An honest corpus, divided and then harmed."""
    return harm(pool, sorted(divided(pool, documents), key=lambda doc: doc.name), strength, rng)


def _some(documents: Sequence[Document], share: float, rng: np.random.Generator) -> list[int]:
    """Numbers of a random share of the documents, one at least."""
    return sorted(rng.permutation(len(documents))[: max(round(share * len(documents)), 1)].tolist())


def _split(rng: np.random.Generator) -> str:
    return str(rng.choice(["train", "val", "test"], p=[0.8, 0.1, 0.1]))


def _shuffled(rows: np.ndarray, unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows with their units, runs of one number, in random order."""
    parts = np.split(rows, np.flatnonzero(np.diff(unit)) + 1)
    return np.concatenate([parts[i] for i in rng.permutation(len(parts))])


def _reordered(
    documents: Sequence[Document], share: float, rng: np.random.Generator, rows: Callable[[Document], np.ndarray]
) -> list[Document]:
    """That share of the documents with other rows, texts and vectors alike."""
    chosen, found = set(_some(documents, share, rng)), []
    for i, doc in enumerate(documents):
        new = rows(doc) if i in chosen else doc.text
        found.append(replace(doc, text=new, vector=new))
    return found


def _exchanged(documents: list[Document], what: Sequence[str], share: float, rng: np.random.Generator) -> list[Document]:
    """A share of the rows of all documents permuted among themselves."""
    total = sum(len(doc.text) for doc in documents)
    hit = np.flatnonzero(rng.random(total) < share)
    order = np.arange(total)
    order[hit] = rng.permutation(hit)
    return _split_up(documents, {name: np.concatenate([getattr(doc, name) for doc in documents])[order] for name in what})


def _split_up(documents: list[Document], columns: dict[str, np.ndarray]) -> list[Document]:
    """Columns of all rows put back into the documents."""
    ends = np.cumsum([len(doc.text) for doc in documents])[:-1]
    parts = {name: np.split(values, ends) for name, values in columns.items()}
    return [replace(doc, **{name: part[i] for name, part in parts.items()}) for i, doc in enumerate(documents)]
