"""Several predictors of one architecture that predict together (deep ensembles, Lakshminarayanan et al. 2017, arXiv 1612.01474).

Much of a predictor's error comes from its own random start and its own batches. Members that started differently and saw other batches
make different errors, so their mean has a smaller error than each of them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ModelConfig
from lvm.models.predictor import Prediction, Predictor


class Ensemble(Predictor):
    """`config.members` predictors. In training the member whose turn it is predicts alone; otherwise their mean is taken."""

    turn = 0
    """Number of the training step. Members train in turn, a batch each, so that no two of them learn the same."""

    def __init__(self, config: ModelConfig, member: Callable[[], Predictor], mean: torch.Tensor, std: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.members = nn.ModuleList(member() for _ in range(config.members))

    def predict(self, context_BTD: torch.Tensor, last: bool = False) -> Prediction:
        """See `Predictor.predict`."""
        if self.training:
            member: Predictor = self.members[self.turn % len(self.members)]  # type: ignore[assignment]
            return member.predict(context_BTD, last)
        return together([member.predict(context_BTD, last) for member in self.members])  # type: ignore[operator]


def together(predictions: Sequence[Prediction]) -> Prediction:
    """The members' common prediction. y_dec has the direction of the mean of all members and the mean of their lengths."""
    if len(predictions) == 1:
        return predictions[0]
    decoder = torch.stack([prediction.decoder for prediction in predictions])
    cosine = torch.stack([prediction.cosine for prediction in predictions])
    length = decoder.norm(dim=-1, keepdim=True).mean(0)
    return Prediction(length * F.normalize(decoder.mean(0), dim=-1), F.normalize(cosine.mean(0), dim=-1))
