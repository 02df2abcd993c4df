"""Draw the texts that an inverter learns from.

Most of them are made from the chunks: a random span of one chunk's words, or the beginning of one chunk
joined to the end of another. The encoder embeds such a text like any other. A corpus of half a million
sentences thus yields as many different (vector, text) pairs as are asked for, and the network cannot memorise
the sentences (bench/decode/LOG.md shows the gain).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lvm.data.names import first_names
from lvm.data.unseen import normalised_text
from lvm.errors import InputError

SHORTEST_SPAN = 3
"""Words in the shortest random span."""


def draw_probabilities(sources: Sequence[str], favour: Mapping[str, float]) -> np.ndarray:
    """Probability of drawing each text, float64 [n] with sum 1.

    `sources` is the source of each text. A text of a source in `favour` is that many times as likely as a text
    of any other. Raises `InputError` when `favour` names a source that no text has.
    """
    known = Counter(sources)
    for name in favour:
        if name not in known:
            there = ", ".join(first_names(list(known)))
            raise InputError(f"field 'decoder.favour' names source {name!r}, which no training text comes from; known: {there}")
    weight = np.array([favour.get(source, 1.0) for source in sources])
    return weight / weight.sum()


def draw_texts(
    texts: Sequence[str],
    count: int,
    spans: float,
    splices: float,
    rng: np.random.Generator,
    held: frozenset[str] = frozenset(),
    probabilities: np.ndarray | None = None,
) -> list[str]:
    """Draw `count` texts from `texts` with the given probabilities (equal if None).

    A share `spans` of them is replaced by a random span of their words, and a share `splices` by a splice
    with another text. A text that would become one of the held-out texts `held` (in the form of
    `normalised_text`) is kept as drawn.
    """
    chosen, other = (rng.choice(len(texts), count, replace=count > len(texts), p=probabilities).tolist() for _ in range(2))
    kind, first, second = (rng.random(count).tolist() for _ in range(3))
    out = []
    for row, number in enumerate(chosen):
        text = made = texts[number]
        words = text.split()
        if kind[row] < spans and len(words) > SHORTEST_SPAN:
            made = random_span(words, first[row], second[row])
        elif spans <= kind[row] < spans + splices:
            made = splice(words, texts[other[row]].split(), first[row], second[row])
        out.append(text if made is not text and normalised_text(made) in held else made)
    return out


def random_span(words: Sequence[str], place: float, size: float) -> str:
    """A random span of at least three of more than three `words`; `place` and `size`, in [0, 1), pick its start and length."""
    length = SHORTEST_SPAN + int(size * (len(words) - SHORTEST_SPAN + 1))
    start = int(place * (len(words) - length + 1))
    return " ".join(words[start : start + length])


def splice(words: Sequence[str], others: Sequence[str], place: float, other_place: float) -> str:
    """The beginning of `words` joined to the end of `others`, at least one word of each.

    `place` and `other_place`, in [0, 1), pick where each is cut.
    """
    return " ".join([*words[: 1 + int(place * len(words))], *others[int(other_place * len(others)) :]])
