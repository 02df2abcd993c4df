"""What an inverter learns from in one round: texts, their vectors, hypotheses.

Half of the texts are random stretches of the chunks' words: each is a text like any other to the
encoder, so that a corpus of half a million sentences yields as many different (vector, text)
pairs as one asks for, and the network cannot learn the sentences by heart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lvm.decode.holdout import plain
from lvm.decode.model import PAD

SHORTEST_SPAN = 3
"""Words."""


def draw_texts(texts: Sequence[str], count: int, spans: float, rng: np.random.Generator, held: frozenset[str] = frozenset()) -> list[str]:
    """`count` texts out of `texts`, a share `spans` of them cut to a random stretch of their words.

    A stretch that is one of the held-out texts `held`, in the form of `plain`, is left uncut.
    """
    chosen = rng.choice(len(texts), count, replace=count > len(texts))
    cut = rng.random(count) < spans
    first, length = rng.random(count), rng.random(count)
    out = []
    for row, number in enumerate(chosen.tolist()):
        text = texts[number]
        if cut[row]:
            words = text.split()
            if len(words) > SHORTEST_SPAN:
                size = SHORTEST_SPAN + int(length[row] * (len(words) - SHORTEST_SPAN + 1))
                start = int(first[row] * (len(words) - size + 1))
                stretch = " ".join(words[start : start + size])
                text = text if plain(stretch) in held else stretch
        out.append(text)
    return out


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
    """Hypotheses, once there are any."""

    guess_vectors: torch.Tensor | None = None
    """float32 [n, D]"""


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
