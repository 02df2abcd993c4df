"""Several predictors of one architecture that answer together (deep ensembles, Lakshminarayanan et al. 2017, arXiv 1612.01474).

On noisy targets a good part of a predictor's error is its own: what its start and its batches made of it. Members that began
differently and read other batches err differently, and their mean errs less than any of them.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ModelConfig
from lvm.models.predictor import Prediction, Predictor


class Ensemble(Predictor):
    """`config.members` predictors. In training the one whose turn it is answers, by itself; else all do, and the mean is taken."""

    turn = 0
    """Whose answer is asked for in training. Each batch teaches one member, so that no two of them learn the same."""

    def __init__(self, config: ModelConfig, member: Callable[[], Predictor], mean: torch.Tensor, std: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.members = nn.ModuleList(member() for _ in range(config.members))

    def predict(self, context_BTD: torch.Tensor, last: bool = False) -> Prediction:
        """As a single predictor's: the direction of the members' mean, at the mean of their lengths, which their mean falls short of."""
        if self.training:
            member: Predictor = self.members[self.turn % len(self.members)]  # type: ignore[assignment]
            return member.predict(context_BTD, last)
        answers = [member.predict(context_BTD, last) for member in self.members]  # type: ignore[operator]
        decoder = torch.stack([answer.decoder for answer in answers])
        cosine = torch.stack([answer.cosine for answer in answers])
        length = decoder.norm(dim=-1, keepdim=True).mean(0)
        return Prediction(length * F.normalize(decoder.mean(0), dim=-1), F.normalize(cosine.mean(0), dim=-1))
