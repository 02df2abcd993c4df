"""Numbers of a trained predictor that validation chooses, not the gradient: how much of the trunk counts, and how y_cos is whitened.

The trunk's residual fits the training documents better than others, the neighbours of a training context hold the context itself, and
whitening changes what InfoNCE sees. None of the three can be learned on the training documents. So they are chosen once, when the training
is over, on the validation windows that chose the epoch: a few numbers, from short lists.
"""

from collections.abc import Iterable
from itertools import product

import torch
from torch.nn import functional as F

from lvm.evaluation.evaluate import Reference, score
from lvm.models import Predictor
from lvm.models.baselines.neighbours import WEIGHTS
from lvm.models.baselines.whitening import POWERS, whiteners
from lvm.models.ensemble import Ensemble, together
from lvm.models.predictor import Parts, Prediction

SHARES = (0.0, 0.15, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0)
"""Shares of the trunk's residual to choose from. 0 is the closed form with the learned lag weights alone."""


@torch.inference_mode()
def calibrate(model: Predictor, contexts: Iterable[torch.Tensor], ref: Reference, covariance_DD: torch.Tensor) -> dict[str, float]:
    """Set the shares, the successors' weight and the whitening of every member of `model`; returns the choices.

    `contexts` are those of the windows of `ref`, in batches [B, T, D]; `covariance_DD` is that of the training chunks. Cosine chooses for
    y_dec; the mean of recall@1, recall@5 and the mean reciprocal rank chooses for y_cos. A model whose heads start from lag weights has no
    successors and no whitening, only the shares.
    """
    members = list(model.members) if isinstance(model, Ensemble) else [model]
    parts = _parts(members, contexts)  # type: ignore[arg-type]
    starts = members[0].start is not None

    def predicted(numbers: dict[str, torch.Tensor]) -> Prediction:
        for member, (name, value) in product(members, numbers.items()):
            getattr(member, name).copy_(value)
        return together([member.combine(own) for member, own in zip(members, parts, strict=True)])  # type: ignore[operator]

    def cosine(share: float, weight: float) -> float:
        numbers = {"decoder_share": share} | ({"successor_weight": weight} if starts else {})
        found = predicted({name: torch.tensor(value) for name, value in numbers.items()})
        return float(F.cosine_similarity(found.decoder[:, 0], ref.targets, dim=-1).mean())

    whitened = whiteners(covariance_DD.cpu())
    matrices = {power: whitened(power) for power in (POWERS if starts else (0.0,))}

    def retrieval(share: float, power: float) -> float:
        numbers = {"cosine_share": torch.tensor(share)} | ({"whitener": matrices[power]} if starts else {})
        found = predicted(numbers)
        ranked = score(found.decoder[:, 0], found.cosine[:, 0], ref.targets, ref.pool, ref.windows)
        return sum(float(ranked.quantity(name).mean()) for name in ("recall_at_1", "recall_at_5", "mrr"))

    share, weight = max(product(SHARES, WEIGHTS if starts else (0.0,)), key=lambda pair: cosine(*pair))
    cosine(share, weight)  # leaves the best numbers in the model
    first = max(matrices, key=lambda power: retrieval(0.5, power))
    cosine_share = max(SHARES, key=lambda s: retrieval(s, first))
    power = max(matrices, key=lambda p: retrieval(cosine_share, p))
    retrieval(cosine_share, power)
    chosen = {"decoder_share": share, "cosine_share": cosine_share}
    return chosen | ({"successor_weight": weight, "whitening_power": power} if starts else {})


def _parts(members: list[Predictor], contexts: Iterable[torch.Tensor]) -> list[Parts]:
    """What each member's heads add up at the last position of every context: [N, 1, D] each."""
    found: list[list[Parts]] = [[] for _ in members]
    for context in contexts:
        for member, own in zip(members, found, strict=True):
            own.append(member.eval().last_parts(context))
    return [Parts.joined(own) for own in found]
