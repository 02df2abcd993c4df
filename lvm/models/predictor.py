"""The predictor around every trunk: normalised input, a start from closed forms, two heads.

Trained from scratch, every network loses to the mean of the context. So a head is what the best closed form predicts (see `closed_forms`),
plus learned lag weights and a residual from the trunk, which both start at zero: before its training a predictor *is* the strongest
baseline. Regression and retrieval pull a vector in different directions, so each has a head of its own. The decoder's vector is a
direction times a length, and the two are learned separately.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ModelConfig
from lvm.models.closed_forms import ClosedForms

INITIAL_DECAY = 0.6
"""Decay at the start of lag weights that have no closed form beside them, near that of the best exponentially weighted mean of text."""

INITIAL_SHARE = 0.5
"""Share of the trunk's residual that counts in inference until it is chosen, after training; see `lvm.training.calibrate`."""

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

    Lags before the beginning of the context count as the training mean, which is zero here. The weights start at zero where `correcting` a
    closed form, and as an exponentially weighted mean where they stand alone.
    """

    def __init__(self, lags: int, correcting: bool = False) -> None:
        super().__init__()
        weights = INITIAL_DECAY ** torch.arange(lags, dtype=torch.float32)
        self.weight = nn.Parameter(torch.zeros(lags) if correcting else weights / weights.sum())

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


class Parts(NamedTuple):
    """What the two heads add up, at every wanted position: [B, T, D] each. Training needs no `successors`."""

    decoder: torch.Tensor
    """Centred: closed form and lag weights of y_dec."""

    decoder_residual: torch.Tensor
    successors: torch.Tensor | None
    """Mean centred successor of the nearest training contexts; None without a weight for it."""

    cosine: torch.Tensor
    """Closed form and lag weights of y_cos."""

    cosine_residual: torch.Tensor
    norm: torch.Tensor
    """[B, T, 1]: the length of y_dec."""

    @classmethod
    def joined(cls, batches: "Sequence[Parts]") -> "Parts":
        """The parts of several batches as those of one."""
        return cls(*(torch.cat(column) if column[0] is not None else None for column in zip(*batches, strict=True)))  # type: ignore[arg-type]


class Predictor(nn.Module):
    """A causal next-chunk predictor with a decoder head and a cosine head.

    `trunk` maps normalised input [B, T, D] to states [B, T, width], causally. `start` are the closed forms to start from; with None the
    heads start from lag weights alone, for comparison, and as models of older versions do.
    """

    mean: torch.Tensor
    std: torch.Tensor
    decoder_share: torch.Tensor
    """Share of the trunk's residual in y_dec, in inference only: part of it fits the training documents alone."""

    cosine_share: torch.Tensor
    """The same in y_cos."""

    successor_weight: torch.Tensor
    """Weight of the nearest training contexts' successors in y_dec, in inference only."""

    whitener: torch.Tensor
    """[D, D]: y_cos is multiplied by it."""

    def __init__(
        self, config: ModelConfig, trunk: nn.Module, mean: torch.Tensor, std: torch.Tensor, start: ClosedForms | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.start = start
        self.trunk = trunk
        self.input_dropout = nn.Dropout(config.dropout)
        self.output_dropout = nn.Dropout(config.dropout)
        self.make_heads(config)

    def make_heads(self, config: ModelConfig) -> None:
        """Create the modules that `heads` uses."""
        correcting = self.start is not None
        self.decoder_lags = LagWeights(config.lags, correcting)
        self.cosine_lags = LagWeights(config.lags, correcting)
        self.decoder_residual = ResidualHead(config.width, config.dim)
        self.decoder_norm = nn.Linear(config.width, 1)
        nn.init.zeros_(self.decoder_norm.weight)
        nn.init.zeros_(self.decoder_norm.bias)
        self.cosine_residual = ResidualHead(config.width, config.dim)
        self.register_buffer("decoder_share", torch.tensor(INITIAL_SHARE))
        self.register_buffer("cosine_share", torch.tensor(INITIAL_SHARE))
        if self.start is not None:
            self.register_buffer("successor_weight", self.start.successor_weight.clone())
            self.register_buffer("whitener", self.start.whitener.clone())

    def predict(self, context_BTD: torch.Tensor, last: bool = False) -> Prediction:
        """Predictions at every position, or only at the `last`. Position t predicts chunk t + 1 from chunks 0 to t."""
        centred, states = self.states(context_BTD)
        return self.heads(centred, states[:, -1:] if last else states, last)

    def states(self, context_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The centred context [B, T, D], and the trunk's state at every position [B, T, width]."""
        centred = context_BTD - self.mean
        scaled = centred / self.std.clamp_min(MIN_STD_SHARE * self.std.mean())
        return centred, self.output_dropout(self.trunk(self.input_dropout(scaled)))

    def last_parts(self, context_BTD: torch.Tensor) -> Parts:
        """What the heads add up at the last position: [B, 1, D] each."""
        centred, states = self.states(context_BTD)
        return self.parts(centred, states[:, -1:], last=True)

    def heads(self, centred_BTD: torch.Tensor, states_BTH: torch.Tensor, last: bool) -> Prediction:
        """Predictions from the centred context [B, T, D] and the trunk's states at the wanted positions."""
        return self.combine(self.parts(centred_BTD, states_BTH, last))

    def parts(self, centred_BTD: torch.Tensor, states_BTH: torch.Tensor, last: bool) -> Parts:
        """What `combine` adds up."""
        # Residuals are in units of the encoder's deviation. In units of a unit vector (0.05 in each dimension) a few steps of Adam
        # would swamp the closed form.
        scale = self.std.mean()
        decoder, cosine, successors = self.decoder_lags(centred_BTD, last), self.cosine_lags(centred_BTD, last), None
        if self.start is not None:
            regression, query = self.start(centred_BTD, last)
            decoder, cosine = decoder + regression, cosine + query
            # A search for every training position would take longer than the rest of the step, and would find the position itself.
            if not self.training:
                successors = self.start.successors(centred_BTD, last)
        # The sum is shorter than a chunk, as a mean over possible chunks is. Reaching a chunk's length within the sum would turn its
        # direction away from the encoder's mean, whose length there is fixed. So the length is a factor of its own.
        norm = self.encoder_norm() * self.decoder_norm(states_BTH).float().exp()
        residuals = scale * self.decoder_residual(states_BTH), scale * self.cosine_residual(states_BTH)
        return Parts(decoder, residuals[0], successors, cosine, residuals[1], norm)

    def combine(self, parts: Parts) -> Prediction:
        """The sums that are the predictions, with the present shares and weights.

        What the trunk adds fits the training documents better than others, so inference scales it down. Training does not: the trunk would
        only learn to add more.
        """
        decoder_share, cosine_share = (1.0, 1.0) if self.training else (self.decoder_share, self.cosine_share)
        decoder = self.mean + parts.decoder + decoder_share * parts.decoder_residual
        cosine = parts.cosine + cosine_share * parts.cosine_residual
        if parts.successors is not None:
            decoder = decoder + self.successor_weight * parts.successors
        if self.start is not None:
            cosine = F.normalize(cosine.float() @ self.whitener, dim=-1) - self.start.hub
        return Prediction(parts.norm * F.normalize(decoder.float(), dim=-1), F.normalize(cosine.float(), dim=-1))

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
