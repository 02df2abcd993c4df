"""The texts of one round on the inverter's device, and the batches they are read in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lvm.config import DecoderTrainConfig
from lvm.decoding.inverter.model import PAD
from lvm.errors import InputError


class Ragged:
    """Token sequences of different lengths, stored end to end on a device."""

    def __init__(self, rows: Sequence[np.ndarray], device: torch.device) -> None:
        lengths = np.array([len(row) for row in rows])
        self.lengths = lengths
        self._starts = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        self._sizes = torch.from_numpy(lengths).to(device)
        self._flat = torch.from_numpy(np.concatenate(rows).astype(np.int32)).to(device)

    def take(self, rows: torch.Tensor, longest: int) -> torch.Tensor:
        """The sequences `rows` as int64 [len(rows), longest], with PAD after each one's end."""
        place = torch.arange(longest, device=rows.device)
        index = (self._starts[rows, None] + place).clamp_max(len(self._flat) - 1)
        return self._flat[index].long().masked_fill(place >= self._sizes[rows, None], PAD)


@dataclass(frozen=True)
class Pool:
    """The n texts of one round, as vectors and tokens."""

    vectors: torch.Tensor
    """float32 [n, D]: their embeddings."""

    labels: Ragged
    """Their tokens."""

    hypotheses: Ragged | None = None
    """Tokens of hypotheses for the first texts; None before corrections are trained."""

    hypothesis_vectors: torch.Tensor | None = None
    """float32 [hypotheses, D]: the embeddings of the hypotheses."""


@dataclass(frozen=True)
class RoundSize:
    """How much one process learns in a round."""

    batch: int
    """Texts in a batch of this process."""

    texts: int
    """Texts that this process draws."""

    corrected: int
    """How many of them get a hypothesis to correct, in whole batches."""

    steps: int
    """Steps of one pass."""


def round_size(config: DecoderTrainConfig, world: int) -> RoundSize:
    """Divide the texts of a round among `world` processes; `InputError` when the numbers do not allow it."""
    if config.batch % world:
        raise InputError(f"field 'decoder.batch' is {config.batch}: give a multiple of {world}, the number of processes")
    batch, texts = config.batch // world, config.texts // world
    steps = texts // batch
    if not steps:
        raise InputError(f"field 'decoder.texts' is {config.texts}: give at least decoder.batch, which is {config.batch}")
    corrected = round(config.corrections * steps) * batch
    if config.corrections and not corrected:
        share = f"field 'decoder.corrections' is {config.corrections:g} of {steps} batches in a round, which is none"
        raise InputError(f"{share}: raise decoder.texts, lower decoder.batch, or give 0")
    return RoundSize(batch, texts, corrected, steps)


def plan_pass(pool: Pool, batch: int, rng: np.random.Generator) -> list[tuple[np.ndarray, bool]]:
    """The batches of one pass over `pool` in random order, each with whether it corrects hypotheses."""
    lengths, hypotheses = pool.labels.lengths, 0 if pool.hypothesis_vectors is None else len(pool.hypothesis_vectors)
    corrected = [(rows, True) for rows in batches(lengths[:hypotheses], batch, rng)]
    written = [(rows + hypotheses, False) for rows in batches(lengths[hypotheses:], batch, rng)]
    both = corrected + written
    return [both[i] for i in rng.permutation(len(both))]


def batches(lengths: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows in batches of exactly `size`, each of nearly one length, in random order. A random remainder is left out.

    The lengths get a little noise before they are sorted; otherwise the same texts would share a batch in every pass.
    """
    kept = rng.permutation(len(lengths))[: len(lengths) // size * size]
    whole = kept[np.argsort(lengths[kept] + rng.random(len(kept)) * 4)].reshape(-1, size)
    yield from whole[rng.permutation(len(whole))]


def round_up(length: int, step: int = 8) -> int:
    """`length` rounded up to a multiple of `step`: a compiled network is fast on a few shapes only."""
    return -(-length // step) * step
