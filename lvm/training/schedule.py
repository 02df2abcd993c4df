"""The learning rate over the steps of a training, for predictors and decoders alike."""

import math


def warmup_cosine(step: int, total: int, warmup: float, peak: float) -> float:
    """Learning rate of step `step` out of `total`: a linear warm-up to `peak`, then a cosine to zero.

    `warmup` is the share of the steps that the warm-up takes. No step's rate is above `peak`.
    """
    warm = warmup * total
    if step < warm:
        return peak * min(1.0, (step + 1) / warm)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))
