"""Choosing from a list of numbers in order, without trying all of them."""

from collections.abc import Callable, Sequence


def climb(values: Sequence[float], score: Callable[[float], float], start: float) -> float:
    """The value whose neighbours in `values` score no better, found by walking uphill from `start`, one of them.

    A score that rises to one top and falls behind it, as those of decays, powers and weights do, is at its best there. No value is
    scored twice. At equal scores the walk stays.
    """
    scores: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in scores:
            scores[place] = score(values[place])
        return scores[place]

    here = values.index(start)
    while True:
        nearby = [here, *(place for place in (here - 1, here + 1) if 0 <= place < len(values))]
        best = max(nearby, key=at)
        if best == here:
            return values[here]
        here = best
