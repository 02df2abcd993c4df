"""Candidates for the decoder's vector: the highest mean cosine to the next chunk."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.rivals.linear import Predict, Ridge, axis_weights, ridge
from bench.rivals.local import Key, kernel, successors
from bench.rivals.problem import Problem

FIVE = (0.5, 0.7, 0.85, 0.93, 0.97)
INF = float("inf")
PAIRS = ((0.5, 0.85), (0.5, 0.95))
OLD = "ridge on 4 lags and five EWMAs"
LINEAR_BEST = "lag weights of each axis, and ridge on two EWMAs, read backwards too"


@dataclass(frozen=True)
class Candidate:
    """A way to predict, with the values that its parameters may take."""

    name: str
    make: Callable[..., Predict]
    grid: Mapping[str, tuple[Any, ...]]


@dataclass
class Best:
    """The best candidate so far, by name as well, since later ones build on earlier ones."""

    score: float = -2.0
    predict: Predict | None = None
    made: dict[str, Predict] = field(default_factory=dict)

    def offer(self, candidate: Candidate, options: Mapping[str, Any], score: float) -> None:
        """Remember a candidate with its chosen options."""
        self.made[candidate.name] = candidate.make(**options)
        if score > self.score:
            self.score, self.predict = score, self.made[candidate.name]


def candidates(p: Problem, best: Best, landmarks: int) -> Iterator[Candidate]:
    """All, each made when the search arrives at it."""
    yield from _linear(p)
    yield from _variants(p, best)
    yield from _local(p, best, landmarks)


def _linear(p: Problem) -> Iterator[Candidate]:
    """Ridge regressions as they were known, then those that start from lag weights of each axis."""
    strengths = {"penalty_ewmas": (0.3, 1.0, 3.0)}
    yield Candidate("ridge on 8 lags", partial(ridge, p, Ridge(min(8, p.length)), penalty_ewmas=0.0), {"penalty_lags": (1.0, 3.0, 10.0)})
    yield Candidate(
        OLD, partial(ridge, p, Ridge(min(4, p.length), FIVE)), {"penalty_lags": (3.0, 10.0, 30.0), "penalty_ewmas": (1.0, 3.0, 10.0)}
    )
    yield Candidate("ridge on two EWMAs", partial(_ridge_of, p), {"of": tuple(Ridge(0, pair) for pair in PAIRS), **strengths})
    yield Candidate("one weight for each lag", partial(_axes, p), {"shrink": (INF,)})
    yield Candidate("a weight for each lag and axis", partial(_axes, p), {"shrink": (0.0, 0.1, 1.0)})
    starts = tuple(Ridge(0, pair, start=(0.1, 0.0)) for pair in PAIRS)
    yield Candidate("lag weights of each axis, and ridge on two EWMAs", partial(_ridge_of, p), {"of": starts, **strengths})
    back = tuple(Ridge(0, PAIRS[0], start=(0.1, w), back=w) for w in (0.3, 0.6, 1.0))
    yield Candidate(LINEAR_BEST, partial(_ridge_of, p), {"of": back, **strengths})


def _variants(p: Problem, best: Best) -> Iterator[Candidate]:
    """Changes to the linear best, one at a time."""
    pair, w, two = PAIRS[0], 0.6, {"penalty_ewmas": (0.3, 1.0)}
    same = partial(Ridge, 0, pair, start=(0.1, w), back=w)
    yield Candidate("the same, five EWMAs", partial(ridge, p, Ridge(0, FIVE, start=(0.1, w), back=w), 0.0), two)
    yield Candidate("the same, long documents count less", partial(_ridge_of, p), {"of": (same(by_document=0.5),), **two})
    yield Candidate("the same, features times agreement of the context", partial(ridge, p, same(spread=True), 0.0), two)
    ranks = {"rank": (len(p.mean) // 4, len(p.mean) // 2)}
    yield Candidate("the same, of reduced rank", partial(ridge, p, same(), 0.0), {**ranks, "penalty_ewmas": (0.3, 1.0)})
    linear = best.made[LINEAR_BEST]
    yield Candidate("the same, its centred part scaled", lambda scale: lambda split: scale * linear(split), {"scale": (0.9, 1.1, 1.2)})


def _local(p: Problem, best: Best, landmarks: int) -> Iterator[Candidate]:
    """What training contexts like this one add."""
    weights, near = (0.05, 0.1, 0.15, 0.2, 0.3), {"k": (32, 64, 128), "temperature": (0.05, 0.1)}
    plain, whitened = (Key(0.6), Key(0.75)), (Key(0.6, 0.25), Key(0.75, 0.25), Key(0.6, 0.5))
    old, linear = best.made[OLD], best.made[LINEAR_BEST]

    def plus(base: Predict, key: Key, weight: float, **how: Any) -> Predict:
        return _sum(base, successors(p, key, **how), weight)

    yield Candidate("successors of neighbours alone", partial(successors, p), {"key": plain, **near})
    yield Candidate(f"{OLD} + successors", partial(plus, old), {"key": plain, **near, "weight": weights})
    yield Candidate("linear best + successors", partial(plus, linear), {"key": plain, **near, "weight": weights})
    yield Candidate("linear best + successors, key whitened", partial(plus, linear), {"key": whitened, **near, "weight": weights})
    yield Candidate(
        "linear best + residuals of neighbours",
        partial(plus, linear, minus=linear),
        {"key": whitened[:1], **near, "weight": (0.2, 0.4, 0.6)},
    )
    yield Candidate(
        "linear best + successors, key the prediction",
        partial(plus, linear, prediction=linear),
        {"key": (Key(power=0.25),), **near, "weight": weights},
    )
    if landmarks:
        shape = {"width": (0.2, 0.3, 0.5), "penalty": (1.0, 3.0, 10.0)}
        yield Candidate("kernel ridge", partial(kernel, p, whitened[0], landmarks=landmarks), shape)

        def under(width: float, penalty: float) -> Predict:
            return _sum(linear, kernel(p, whitened[0], width, penalty, landmarks, linear), 1.0)

        yield Candidate("linear best + kernel ridge of its residuals", under, shape)
        kernelled, found = best.made["linear best + kernel ridge of its residuals"], {"k": (64, 128), "temperature": (0.1,)}
        yield Candidate("the same + successors", partial(plus, kernelled), {"key": whitened, **found, "weight": weights})


def _axes(p: Problem, shrink: float) -> Predict:
    """The lag weights alone."""
    weights = axis_weights(p, shrink, 0.0)
    return lambda split: p.map(weights, split)


def _ridge_of(p: Problem, of: Ridge, penalty_ewmas: float) -> Predict:
    """Ridge without lags among its features."""
    return ridge(p, of, 0.0, penalty_ewmas)


def _sum(first: Predict, second: Predict, weight: float) -> Predict:
    """first + weight * second."""
    return lambda split: first(split) + weight * second(split)
