"""Candidates for the query that ranks real chunks: the highest mean reciprocal rank.

A candidate gives a query for each window, and where it says so a term for each chunk of the pool, which no vector can hold.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from bench.rivals.decoder import LINEAR_BEST, OLD, Best
from bench.rivals.linear import Predict
from bench.rivals.metric import Hubness, bank, regularised_inverse, training_chunks, whitening
from bench.rivals.problem import Problem

Query = Callable[[str], tuple[torch.Tensor, torch.Tensor | None]]
DECAYS, POWERS, SHARES = (0.7, 0.75, 0.8), (0.35, 0.5, 0.65, 0.75), (0.5, 1.0, 2.0)
BEST_VECTOR = "within: whitened (EWMA + linear best)"


@dataclass(frozen=True)
class Candidate:
    """A way to ask, with the values that its parameters may take."""

    name: str
    make: Callable[..., Query]
    grid: Mapping[str, tuple[Any, ...]]


def candidates(p: Problem, best: Best, chosen: Mapping[str, Mapping[str, Any]]) -> Iterator[Candidate]:
    """All, each made when the search arrives at it; `chosen` are the options of those before."""
    old, linear = best.made[OLD], best.made[LINEAR_BEST]
    yield Candidate("centred EWMA", partial(_whitened, p, None, "total", power=0.0, share=0.0), {"decay": (0.55, 0.6, 0.65, *DECAYS)})
    yield Candidate("whitened EWMA", partial(_whitened, p, None, "total", share=0.0), {"power": POWERS, "decay": DECAYS})
    grid = {"power": POWERS[1:], "decay": DECAYS, "share": SHARES}
    yield Candidate(f"whitened (EWMA + {OLD})", partial(_whitened, p, old, "total"), grid)
    yield Candidate("whitened (EWMA + linear best)", partial(_whitened, p, linear, "total"), grid)
    for of in ("residual", "step", "within"):
        yield Candidate(f"{of}: whitened (EWMA + linear best)", partial(_whitened, p, linear, of), grid)
    fixed = chosen[BEST_VECTOR]
    start = partial(_mixed, p, linear, fixed["decay"], fixed["share"])
    metric = whitening(p, "within", fixed["power"])
    yield from _metrics(p, start, metric)
    yield from _parts(p, best, start, metric)
    yield from _hubs(p, start, metric)


def _metrics(p: Problem, start: Predict, metric: torch.Tensor) -> Iterator[Candidate]:
    """Other matrices, and parts of unit length."""

    def inverse(share: float) -> Query:
        matrix = regularised_inverse(p, "within", share)
        return lambda split: (start(split) @ matrix, None)

    yield Candidate("the same, regularised inverse instead of a power", inverse, {"share": (0.1, 0.3, 1.0, 3.0)})
    yield Candidate("the same, the mean moved", lambda by: lambda split: ((start(split) + by * p.mean) @ metric, None), {"by": (-0.1, 0.1)})

    def corpus(by: float) -> Query:
        def query(split: str) -> tuple[torch.Tensor, None]:
            own = p.centred[torch.as_tensor(p.windows[split].pool, device=p.device)].mean(0)
            return (start(split) - by * own) @ metric, None

        return query

    yield Candidate("the same, minus the mean of the pool", corpus, {"by": (0.5, 1.0)})

    def context(by: float) -> Query:
        return lambda split: ((start(split) - by * p.map(lambda x: x.mean(1), split)) @ metric, None)

    yield Candidate("the same, minus the mean of the context", context, {"by": (0.25, 0.5)})


def _parts(p: Problem, best: Best, start: Predict, metric: torch.Tensor) -> Iterator[Candidate]:
    """Other parts of the query: the last chunk, attention within the context, neighbours, the whole decoder vector."""

    def without_last(by: float) -> Query:
        return lambda split: ((start(split) - by * p.map(lambda x: x[:, 0], split)) @ metric, None)

    yield Candidate("the same, minus a part of the last chunk", without_last, {"by": (-0.1, 0.1, 0.2)})

    def attending(temperature: float) -> Query:
        def attend(x: torch.Tensor) -> torch.Tensor:
            others = F.normalize(x.sum(1, keepdim=True) - x, dim=2)
            agreement = (others * F.normalize(x, dim=2)).sum(2)
            fading = 0.7 ** torch.arange(x.shape[1], device=x.device)
            weights = fading * (agreement / temperature).exp()
            return torch.einsum("nt,ntd->nd", weights / weights.sum(1, keepdim=True), x)

        return lambda split: ((start(split) + p.map(attend, split)) @ metric, None)

    yield Candidate("the same, plus chunks by their agreement with the context", attending, {"temperature": (0.5, 2.0, -0.5)})
    assert best.predict is not None
    whole = best.predict
    yield Candidate(
        "the same, plus the best decoder vector",
        lambda by: lambda split: ((start(split) + by * whole(split)) @ metric, None),
        {"by": (0.25, 0.5, 1.0, 2.0)},
    )


def _hubs(p: Problem, start: Predict, metric: torch.Tensor) -> Iterator[Candidate]:
    """Corrections for hubs: chunks that are near to every query."""

    def query(split: str) -> torch.Tensor:
        return F.normalize(start(split) @ metric, dim=1)

    asked, chunks = bank(p, query, 6_000), training_chunks(p, 10_000)

    def direction(k: int, by: float) -> Query:
        away = p.keep(("hub", k), lambda: Hubness(asked, min(k, len(asked))).direction(chunks))
        return lambda split: (query(split) - by * away, None)

    yield Candidate("the same, minus the direction of hubs", direction, {"k": (10, 100, 300), "by": (0.25, 0.5, 0.75)})

    def term(k: int, by: float) -> Query:
        return lambda split: (query(split), by * Hubness(asked, min(k, len(asked))).of(p.pool(split)))

    yield Candidate("a term of each pool chunk: CSLS from training queries", term, {"k": (10, 100), "by": (0.25, 0.5, 0.75)})

    def own(k: int, by: float) -> Query:
        return lambda split: (query(split), by * Hubness(query(split), min(k, len(query(split)))).of(p.pool(split)))

    yield Candidate("a term of each pool chunk: CSLS from the other queries asked (not fair)", own, {"k": (10, 100), "by": (0.25, 0.5)})


def _mixed(p: Problem, linear: Predict, decay: float, share: float, split: str) -> torch.Tensor:
    """EWMA + share * prediction."""
    return p.ewma(split, decay) + share * linear(split)


def _whitened(p: Problem, linear: Predict | None, of: str, power: float, decay: float, share: float) -> Query:
    """(EWMA + share * prediction) times a covariance to the minus power."""
    matrix = whitening(p, of, power, linear) if power else torch.eye(len(p.mean), device=p.device)

    def query(split: str) -> tuple[torch.Tensor, None]:
        mixed = p.ewma(split, decay) if linear is None else _mixed(p, linear, decay, share, split)
        return mixed @ matrix, None

    return query
