"""How much a prediction says about the next chunk: accuracy against chunks of the same document, and information in nats.

Shapes: N windows, K candidates of which the first is the true next chunk, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from lvm.config import EXCLUDED_BEFORE
from lvm.data.dataset import Dataset
from lvm.data.windows import Windows
from lvm.errors import InputError
from lvm.evaluation.intervals import Interval, document_interval

CANDIDATES = 1_024
"""Candidates at most. InfoNCE cannot exceed their logarithm: 6.9 nats."""


TEMPERATURES = (1e-3, 10.0)
"""Range in which a critic's temperature is searched."""


@dataclass(frozen=True)
class Contrast:
    """Contrastive accuracy: how often a prediction is nearer to the true next chunk than to all distractors from the same document."""

    chance: float
    """Accuracy of guessing: 1 / (distractors + 1)."""

    accuracy: dict[str, Interval]
    """By predictor."""

    lead: dict[str, Interval]
    """The first predictor's accuracy minus each other's, paired by window."""

    windows: int
    """Number of windows with enough distractors; the others are left out."""


def distractors(dataset: Dataset, targets_N: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions [M] of the targets that have `count` distractors, and the rows of these distractors, [M, count].

    A distractor is a chunk of the target's document with another text. The 64 chunks before the target are excluded, as in the
    retrieval pool, so most distractors come after it.
    """
    rng = np.random.default_rng(seed)
    kept, found = [], []
    for i, row in enumerate(targets_N):
        doc = dataset.row_doc[row]
        rows = np.arange(dataset.starts[doc], dataset.starts[doc + 1])
        rows = rows[((rows < row - EXCLUDED_BEFORE) | (rows > row)) & (dataset.text_codes[rows] != dataset.text_codes[row])]
        if len(rows) >= count:
            kept.append(i)
            found.append(rng.choice(rows, count, replace=False))
    return np.array(kept, np.int64), np.array(found, np.int64).reshape(-1, count)


def contrast(predicted: Mapping[str, torch.Tensor], dataset: Dataset, windows: Windows, count: int) -> Contrast | None:
    """Contrastive accuracy of each of `predicted` [N, D] against `count` distractors; a tie is a miss. None if no window has so many.

    Beating chance is not enough: the next chunk is nearer to its context than later chunks are, so even the last chunk
    as a prediction is above chance.
    """
    kept, rows = distractors(dataset, windows.targets, count)
    if not len(kept):
        return None
    options = np.concatenate([windows.targets[kept, None], rows], 1)
    hits = {}
    for name, vectors in predicted.items():
        device, parts = vectors.device, []
        for start in range(0, len(kept), 256):
            part = slice(start, start + 256)
            candidates = F.normalize(torch.from_numpy(dataset.vectors[options[part]]).to(device), dim=-1)
            cosine = torch.einsum("nd,nkd->nk", vectors[torch.from_numpy(kept[part]).to(device)], candidates)
            parts.append((cosine[:, :1] > cosine[:, 1:]).all(1))
        hits[name] = torch.cat(parts).float().cpu().numpy()
    docs = windows.docs[kept]
    first, *others = hits
    return Contrast(
        chance=1 / (count + 1),
        accuracy={name: document_interval(hit, docs) for name, hit in hits.items()},
        lead={name: document_interval(hits[first] - hits[name], docs) for name in others},
        windows=len(kept),
    )


@dataclass(frozen=True)
class Critic:
    """The information of one predictor, whose cosine to each candidate is the critic of InfoNCE."""

    bound: Interval
    """InfoNCE's lower bound on the mutual information of its input and the next chunk, in nats; at most the ceiling."""

    temperature: float
    """Fitted on validation documents."""


@dataclass(frozen=True)
class Information:
    """InfoNCE of several critics on the same candidates."""

    candidates: int
    """K."""

    ceiling: float
    """log K in nats, which no bound can exceed."""

    critics: dict[str, Critic]

    last_chunk: str
    """The critic that is best on validation documents among those that read only the last chunk."""

    gains: dict[str, Interval]
    """In nats, by critic that reads the whole context; see `information`."""


def candidate_count(*splits: tuple[Dataset, Windows]) -> int:
    """Largest K, up to 1,024, for which every query of every split has K - 1 chunks of other documents in its pool.

    Raises `InputError` when a split has only one document.
    """
    least = CANDIDATES
    for dataset, windows in splits:
        pool = dataset.row_doc[windows.pool]
        least = min(least, *(1 + int((pool != doc).sum()) for doc in np.unique(windows.docs)))
    if least < 2:
        raise InputError("a split has only one document, and candidates come from others: give more documents")
    return least


def negatives(dataset: Dataset, windows: Windows, candidates: int, seed: int = 0) -> np.ndarray:
    """Positions in the pool of random chunks of other documents, int64 [N, K - 1].

    InfoNCE requires candidates that are independent of the context, which chunks of the same document are not.
    """
    rng, pool = np.random.default_rng(seed), dataset.row_doc[windows.pool]
    others = {doc: np.flatnonzero(pool != doc) for doc in np.unique(windows.docs)}
    return np.array([rng.choice(others[doc], candidates - 1, replace=False) for doc in windows.docs])


def similarities(predicted_ND: torch.Tensor, pool_PD: torch.Tensor, windows: Windows, negatives_NK: np.ndarray) -> torch.Tensor:
    """Cosine of each prediction to its candidates, the true next chunk first: float64 [N, K]."""
    columns = torch.from_numpy(np.concatenate([windows.answer[:, None], negatives_NK], 1)).to(pool_PD.device)
    unit, parts = F.normalize(predicted_ND, dim=-1), []
    for start in range(0, len(unit), 256):
        part = slice(start, start + 256)
        parts.append((unit[part] @ pool_PD.T).gather(1, columns[part]))
    return torch.cat(parts).double().cpu() if pool_PD.device.type != "mps" else torch.cat(parts).cpu().double()


def log_likelihoods(cosine_NK: torch.Tensor, temperature: float) -> np.ndarray:
    """Log-probability of the true next chunk among the K candidates, in nats: float64 [N]."""
    return (cosine_NK / temperature).log_softmax(1)[:, 0].numpy()


def fit_temperature(cosine_NK: torch.Tensor) -> float:
    """The temperature with the greatest likelihood of the true next chunks, searched on a logarithmic scale."""
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(lambda t: -log_likelihoods(cosine_NK, float(np.exp(t))).mean(), bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


def information(
    val: Mapping[str, torch.Tensor], reported: Mapping[str, torch.Tensor], last_alone: Sequence[str], docs_N: np.ndarray
) -> Information:
    """InfoNCE (van den Oord et al. 2018; I_NCE in Poole et al. 2019) of each critic, and what the context adds to its last chunk.

    `val` and `reported` are `similarities` [N, K] by critic. Temperatures, and the best critic in `last_alone` (those that read only
    the last chunk), are chosen on the validation windows `val`; results are of `reported`, whose documents are `docs_N`.

    Each bound is log K plus the mean log-likelihood of the true next chunk among K candidates. It is a lower bound on the
    mutual information of the critic's input and the next chunk, as far as the documents are representative. A gain is the mean
    difference of two log-likelihoods: how much likelier, in nats, the true next chunk becomes when the critic reads the whole
    context. A gain is not itself a bound: it is low by what the critic of the whole context misses, and high by what the
    critic of the last chunk misses.
    """
    temperatures = {name: fit_temperature(cosine) for name, cosine in val.items()}
    fitted = {name: float(log_likelihoods(val[name], t).mean()) for name, t in temperatures.items()}
    found = {name: log_likelihoods(cosine, temperatures[name]) for name, cosine in reported.items()}
    count = next(iter(reported.values())).shape[1]
    best = max(last_alone, key=lambda name: fitted[name])
    return Information(
        candidates=count,
        ceiling=float(np.log(count)),
        critics={n: Critic(document_interval(np.log(count) + each, docs_N), temperatures[n]) for n, each in found.items()},
        last_chunk=best,
        gains={n: document_interval(each - found[best], docs_N) for n, each in found.items() if n not in last_alone},
    )
