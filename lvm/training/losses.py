"""The loss terms. The loss is their weighted sum, with the weights in `LossConfig`.

A term is one registered function from `LossInputs` to a scalar. One that is registered from outside the package has its weight in
`loss.NAME`, as the built-in ones have.

Shapes: M valid positions of a batch, A contrastive anchors, E extra negatives, D dimensions.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lvm.config import EXCLUDED_BEFORE, LOSS_TERMS, LossConfig
from lvm.data.statistics import EncoderStatistics
from lvm.models import Prediction
from lvm.training.batches import BatchVectors

DEAD_SHARE = 0.2
"""A dimension whose deviation is below this share of the mean deviation carries nothing to match."""


@dataclass(frozen=True)
class LossInputs:
    """What a term may read of a batch. Positions after the end of a document are left out."""

    y_dec: torch.Tensor
    """[M, D]: predictions for the decoder."""

    y_cos: torch.Tensor
    """[M, D]: predictions for retrieval, of unit length."""

    target: torch.Tensor
    """[M, D]: the chunks that were to be predicted."""

    anchor_y_cos: torch.Tensor
    """[A, D]: the rows of `y_cos` that take part in the contrastive term."""

    anchor_target: torch.Tensor
    """[A, D]: their targets, of unit length."""

    anchor_row: torch.Tensor
    """int64 [A]: row in the dataset of the last chunk that each anchor has read; its target is the next row."""

    anchor_doc: torch.Tensor
    """int64 [A]: number of its document."""

    negative: torch.Tensor
    """[E, D]: hard negatives, of unit length."""

    negative_row: torch.Tensor
    """int64 [E]"""

    negative_doc: torch.Tensor
    """int64 [E]"""

    reach: int
    """Chunks up to `anchor_row` that count as an anchor's own context."""

    encoder: EncoderStatistics
    """Moments of the encoder's vectors on the training chunks."""

    config: LossConfig
    """Weights and settings of the terms."""


@LOSS_TERMS.register("regression")
def regression(batch: LossInputs) -> torch.Tensor:
    """1 - cosine(y_dec, target), averaged. It scores the direction alone: squared error in its place costs 0.013 of cosine."""
    return 1 - F.cosine_similarity(batch.y_dec, batch.target, dim=-1).mean()


@LOSS_TERMS.register("norm")
def norm(batch: LossInputs) -> torch.Tensor:
    """Squared error of y_dec's norm, which the cosine leaves free, in units of the encoder's mean norm."""
    difference = batch.y_dec.norm(dim=-1) - batch.target.norm(dim=-1)
    return (difference / batch.encoder.norm).square().mean()


@LOSS_TERMS.register("infonce")
def infonce(batch: LossInputs) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018) on y_cos: tell each anchor's target from all other chunks of the batch.

    The negatives of an anchor are the other anchors' targets and the hard negatives, without those that `forbidden_negatives` excludes.
    """
    forbidden, temperature = forbidden_negatives(batch), batch.config.temperature
    return contrastive_loss(batch.anchor_y_cos, batch.anchor_target, batch.negative, forbidden, temperature)


@LOSS_TERMS.register("moments")
def moments(batch: LossInputs) -> torch.Tensor:
    """Squared distance of y_dec's per-dimension mean and deviation from the encoder's.

    Averaged over dimensions, in units of the encoder's mean variance, so that a value of 1 is large in any space. These are the first
    two moments of generative moment matching (Li, Swersky & Zemel 2015).
    """
    encoder = batch.encoder
    off_mean = (batch.y_dec.mean(0) - encoder.mean).square().mean()
    off_std = (batch.y_dec.std(0, correction=0) - encoder.std).square().mean()
    return (off_mean + off_std) / encoder.std.square().mean()


@LOSS_TERMS.register("variance")
def variance(batch: LossInputs) -> torch.Tensor:
    """Hinge that keeps y_cos's per-dimension deviation near the targets'.

    VICReg's `relu(1 - std)` (Bardes et al. 2022) never reaches zero on unit vectors, whose deviations are about 1/sqrt(D). Relative to
    the targets' deviation it can.
    """
    unit_std = batch.encoder.unit_std
    live = unit_std > DEAD_SHARE * unit_std.mean()
    return F.relu(1 - batch.y_cos.std(0, correction=0)[live] / unit_std[live]).mean()


@LOSS_TERMS.register("mse")
def mse(batch: LossInputs) -> torch.Tensor:
    """Squared error of y_dec, averaged over positions and dimensions: the only term of the broken original."""
    return F.mse_loss(batch.y_dec, batch.target)


def contrastive_loss(
    y_cos_AD: torch.Tensor, target_AD: torch.Tensor, negative_ED: torch.Tensor, forbidden_AX: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Cross-entropy of each anchor's own target among all targets and extra negatives, except where `forbidden_AX` [A, A + E]."""
    candidates = torch.cat([target_AD, negative_ED])
    logits = (y_cos_AD @ candidates.T / temperature).masked_fill(forbidden_AX, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(y_cos_AD), device=logits.device))


@torch.no_grad()
def forbidden_negatives(batch: LossInputs) -> torch.Tensor:
    """Candidates that must not count as negatives of an anchor: bool [A, A + E], False for its own target.

    These are the anchor's own context (the `reach` rows up to it in its document), and whatever is nearly its target (cosine above
    `duplicate_cosine`): the same content again.
    """
    candidate_row = torch.cat([batch.anchor_row + 1, batch.negative_row])
    candidate_doc = torch.cat([batch.anchor_doc, batch.negative_doc])
    back = batch.anchor_row[:, None] - candidate_row[None]
    context = (batch.anchor_doc[:, None] == candidate_doc[None]) & (back >= 0) & (back < batch.reach)
    same = batch.anchor_target @ torch.cat([batch.anchor_target, batch.negative]).T > batch.config.duplicate_cosine
    forbidden = context | same
    forbidden[:, : len(batch.anchor_row)].fill_diagonal_(False)
    return forbidden


def loss_inputs(prediction: Prediction, vectors: BatchVectors, encoder: EncoderStatistics, config: LossConfig) -> LossInputs:
    """Select what the terms read from the predictions and vectors of a whole batch."""
    valid, anchors = vectors.valid, vectors.anchors
    return LossInputs(
        y_dec=prediction.decoder[valid],
        y_cos=prediction.cosine[valid],
        target=vectors.targets[valid],
        anchor_y_cos=prediction.cosine[anchors],
        anchor_target=F.normalize(vectors.targets[anchors], dim=-1),
        anchor_row=vectors.anchor_rows,
        anchor_doc=vectors.anchor_docs,
        negative=F.normalize(vectors.negatives, dim=-1),
        negative_row=vectors.negative_rows,
        negative_doc=vectors.negative_docs,
        reach=max(EXCLUDED_BEFORE, vectors.targets.shape[1]),
        encoder=encoder,
        config=config,
    )


def loss_terms(prediction: Prediction, vectors: BatchVectors, encoder: EncoderStatistics, config: LossConfig) -> dict[str, torch.Tensor]:
    """Every term with a weight above 0, unweighted, by name. In the registry's order: a sum in another order rounds differently."""
    batch = loss_inputs(prediction, vectors, encoder, config)
    return {name: term(batch) for name, term in LOSS_TERMS.items() if config.weight(name)}


def weighted(terms: dict[str, torch.Tensor], config: LossConfig) -> dict[str, torch.Tensor]:
    """Each term times its weight. Their sum is minimised."""
    return {name: config.weight(name) * term for name, term in terms.items()}
