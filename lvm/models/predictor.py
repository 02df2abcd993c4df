"""The predictor around every trunk: normalised input, lag weights, two heads.

Trained from scratch, every network loses to the mean of the context. As a residual on learned lag weights, every one wins. So a head is
a weighted sum of the last raw context vectors, plus a residual from the trunk that starts at zero. Regression and retrieval pull a vector
in different directions, so each has a head of its own. The decoder's vector is a direction times a length, and the two are learned
separately.
"""

from typing import Literal, NamedTuple, overload

import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ModelConfig

INITIAL_DECAY = 0.6
"""Decay of the lag weights at the start, near that of the best exponentially weighted mean of real text."""

MIN_STD_SHARE = 0.2
"""Least deviation that inputs are divided by, as a share of the mean one. Dividing by a smaller one would only amplify noise."""


class Prediction(NamedTuple):
    """Predictions of the next chunk at every position."""

    decoder: torch.Tensor
    """[B, T, D], in the encoder's raw distribution; T is 1 when only the last position was asked for."""

    cosine: torch.Tensor
    """[B, T, D], unit length."""


class LagWeights(nn.Module):
    """A weighted sum of the last K centred context vectors, with learned weights.

    Lags before the beginning of the context count as the training mean, which is zero here.
    """

    def __init__(self, lags: int) -> None:
        super().__init__()
        weights = INITIAL_DECAY ** torch.arange(lags, dtype=torch.float32)
        self.weight = nn.Parameter(weights / weights.sum())

    def forward(self, x_BTD: torch.Tensor, last: bool) -> torch.Tensor:
        """[B, T, D] to [B, T, D], or to [B, 1, D] for the `last` position alone; position t sees positions t-K+1 to t."""
        lags, steps = len(self.weight), x_BTD.shape[1]
        if last:
            seen = x_BTD[:, -lags:]
            return (self.weight[: seen.shape[1]].flip(0)[:, None] * seen).sum(1, keepdim=True)
        padded = F.pad(x_BTD, (0, 0, lags - 1, 0))
        total = torch.zeros_like(x_BTD)
        for lag in range(lags):
            start = lags - 1 - lag
            total = total + self.weight[lag] * padded[:, start : start + steps]
        return total


class ResidualHead(nn.Module):
    """`fc1 -> GELU -> LayerNorm -> fc2`. The last layer starts at zero."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.fc2 = nn.Linear(2 * width, dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, h_BTH: torch.Tensor) -> torch.Tensor:
        """[B, T, width] to [B, T, dim]."""
        out: torch.Tensor = self.fc2(self.norm(F.gelu(self.fc1(h_BTH))))
        return out


class Predictor(nn.Module):
    """A causal next-chunk predictor with a decoder head and a cosine head.

    `trunk` maps normalised input [B, T, D] to states [B, T, width], causally.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: ModelConfig, trunk: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.trunk = trunk
        self.input_dropout = nn.Dropout(config.dropout)
        self.output_dropout = nn.Dropout(config.dropout)
        self.make_heads(config)

    def make_heads(self, config: ModelConfig) -> None:
        """Create the modules that `heads` uses."""
        self.decoder_lags = LagWeights(config.lags)
        self.cosine_lags = LagWeights(config.lags)
        self.decoder_residual = ResidualHead(config.width, config.dim)
        self.decoder_norm = nn.Linear(config.width, 1)
        nn.init.zeros_(self.decoder_norm.weight)
        nn.init.zeros_(self.decoder_norm.bias)
        self.cosine_residual = ResidualHead(config.width, config.dim)

    def predict(self, context_BTD: torch.Tensor, last: bool = False) -> Prediction:
        """Predictions at every position, or only at the `last`. Position t predicts chunk t + 1 from chunks 0 to t."""
        centred = context_BTD - self.mean
        scaled = centred / self.std.clamp_min(MIN_STD_SHARE * self.std.mean())
        states = self.output_dropout(self.trunk(self.input_dropout(scaled)))
        return self.heads(centred, states[:, -1:] if last else states, last)

    def heads(self, centred_BTD: torch.Tensor, states_BTH: torch.Tensor, last: bool) -> Prediction:
        """Predictions from the centred context [B, T, D] and the trunk's states at the wanted positions."""
        # Residuals are in units of the encoder's deviation. In units of a unit vector (0.05 in each dimension) a few steps of Adam
        # would swamp the lag weights.
        scale = self.std.mean()
        decoder = self.mean + self.decoder_lags(centred_BTD, last) + scale * self.decoder_residual(states_BTH)
        # What the trunk adds fits the training documents better than others, so inference scales it down. Training does not: the trunk
        # would only learn to add more.
        share = 1.0 if self.training else self.config.residual_share
        cosine = self.cosine_lags(centred_BTD, last) + share * scale * self.cosine_residual(states_BTH)
        # The sum above is shorter than a chunk, as a mean over possible chunks is. Reaching a chunk's length within the sum would turn
        # its direction away from the encoder's mean, whose length there is fixed. So the length is a factor of its own.
        norm = self.encoder_norm() * self.decoder_norm(states_BTH).float().exp()
        return Prediction(norm * F.normalize(decoder.float(), dim=-1), F.normalize(cosine.float(), dim=-1))

    def encoder_norm(self) -> torch.Tensor:
        """Root mean square norm of the encoder's vectors: a scalar."""
        return (self.mean.square() + self.std.square()).sum().sqrt()

    @overload
    def forward(self, context: torch.Tensor, return_both: None = None) -> Prediction: ...
    @overload
    def forward(self, context: torch.Tensor, return_both: Literal[True]) -> tuple[torch.Tensor, torch.Tensor]: ...
    @overload
    def forward(self, context: torch.Tensor, return_both: Literal[False]) -> torch.Tensor: ...

    def forward(
        self, context: torch.Tensor, return_both: bool | None = None
    ) -> Prediction | tuple[torch.Tensor, torch.Tensor] | torch.Tensor:
        """Predict the next chunk from `context` [B, T, D].

        Without `return_both`: a `Prediction` at every position. With `return_both=True`: `(y_dec, y_cos)` of the last position, each
        [B, D]. With `False`: y_cos alone.
        """
        if return_both is None:
            return self.predict(context)
        y_dec, y_cos = (head[:, -1] for head in self.predict(context, last=True))
        return (y_dec, y_cos) if return_both else y_cos
