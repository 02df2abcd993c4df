"""What an inverter learns from in one round: texts, their vectors, hypotheses.

Many of the texts are random stretches of the chunks' words, or the beginning of one chunk and the end
of another: each is a text like any other to the encoder, so that a corpus of half a million sentences
yields as many different (vector, text) pairs as one asks for, and the network cannot learn the
sentences by heart (bench/decode/LOG.md has what that is worth).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lvm.data.unseen import normalised_text
from lvm.decoding.inverter.model import PAD
from lvm.errors import InputError

SHORTEST_SPAN = 3
"""Words."""


def chances(sources: Sequence[str], favour: Mapping[str, float]) -> np.ndarray:
    """float64 [n], summing to 1: how often each text is drawn, by its source's factor in `favour` (1 where it has none).

    Raises `InputError` when `favour` names a source that no text has.
    """
    known = Counter(sources)
    for name in favour:
        if name not in known:
            raise InputError(f"field 'favour' names source {name!r}, which no training text is of; known: {', '.join(known)}")
    weight = np.array([favour.get(source, 1.0) for source in sources])
    return weight / weight.sum()


def draw_texts(
    texts: Sequence[str],
    count: int,
    spans: float,
    splices: float,
    rng: np.random.Generator,
    held: frozenset[str] = frozenset(),
    chance: np.ndarray | None = None,
) -> list[str]:
    """`count` texts out of `texts`, drawn with probabilities `chance` (equal ones where None).

    A share `spans` of them is cut to a random stretch of its words; to a share `splices`, cut off anywhere,
    the end of another text is added. What would be one of the held-out texts `held`, in the form of
    `normalised_text`, is left as it was drawn.
    """
    chosen, other = (rng.choice(len(texts), count, replace=count > len(texts), p=chance).tolist() for _ in range(2))
    kind, first, second = (rng.random(count).tolist() for _ in range(3))
    out = []
    for row, number in enumerate(chosen):
        text = made = texts[number]
        words = text.split()
        if kind[row] < spans and len(words) > SHORTEST_SPAN:
            made = stretch(words, first[row], second[row])
        elif spans <= kind[row] < spans + splices:
            made = splice(words, texts[other[row]].split(), first[row], second[row])
        out.append(text if made is not text and normalised_text(made) in held else made)
    return out


def stretch(words: Sequence[str], place: float, size: float) -> str:
    """A stretch of more than three `words`, of three at least; `place` and `size`, in [0, 1), say which."""
    length = SHORTEST_SPAN + int(size * (len(words) - SHORTEST_SPAN + 1))
    start = int(place * (len(words) - length + 1))
    return " ".join(words[start : start + length])


def splice(words: Sequence[str], others: Sequence[str], place: float, other_place: float) -> str:
    """`words` up to one place, `others` from another on; a word of each at least."""
    return " ".join([*words[: 1 + int(place * len(words))], *others[int(other_place * len(others)) :]])


class Ragged:
    """Token sequences of many lengths, flat on a device."""

    def __init__(self, rows: Sequence[np.ndarray], device: torch.device) -> None:
        lengths = np.array([len(row) for row in rows])
        self.lengths = lengths
        self._starts = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        self._sizes = torch.from_numpy(lengths).to(device)
        self._flat = torch.from_numpy(np.concatenate(rows).astype(np.int32)).to(device)

    def take(self, rows: torch.Tensor, longest: int) -> torch.Tensor:
        """int64 [len(rows), longest], PAD after each row's end."""
        place = torch.arange(longest, device=rows.device)
        index = (self._starts[rows, None] + place).clamp_max(len(self._flat) - 1)
        return self._flat[index].long().masked_fill(place >= self._sizes[rows, None], PAD)


@dataclass(frozen=True)
class Pool:
    """A round's texts as an inverter reads them, on its device."""

    vectors: torch.Tensor
    """float32 [n, D]"""

    labels: Ragged
    guesses: Ragged | None = None
    """Hypotheses for the first texts, once there are any."""

    guess_vectors: torch.Tensor | None = None
    """float32 [hypotheses, D]"""


def batches(lengths: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows in batches of exactly `size` and nearly one length each, in random order; a random remainder is left out.

    Lengths are blurred before sorting, or the same texts would meet in every pass.
    """
    kept = rng.permutation(len(lengths))[: len(lengths) // size * size]
    whole = kept[np.argsort(lengths[kept] + rng.random(len(kept)) * 4)].reshape(-1, size)
    yield from whole[rng.permutation(len(whole))]


def round_up(length: int, step: int = 8) -> int:
    """`length` as a multiple of `step`: few shapes keep a compiled network few, and suit the device."""
    return -(-length // step) * step
