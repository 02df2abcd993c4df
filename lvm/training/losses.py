"""The loss terms, each a function of its own, and their weighted sum.

Shapes: M valid positions of a batch, A contrastive anchors, E extra negatives, D dimensions.
"""

import torch
from torch.nn import functional as F

from lvm.config import LOSS_TERMS, LossConfig
from lvm.data.statistics import EncoderStatistics
from lvm.data.windows import EXCLUDED_BEFORE
from lvm.models import Prediction
from lvm.training.batches import BatchVectors

# A dimension whose deviation is under this share of the mean one carries nothing to match.
DEAD_SHARE = 0.2


def regression_loss(y_dec_MD: torch.Tensor, target_MD: torch.Tensor) -> torch.Tensor:
    """1 - cosine(y_dec, target), averaged: direction only, since pure MSE loses .013 of cosine."""
    return 1 - F.cosine_similarity(y_dec_MD, target_MD, dim=-1).mean()


def mse_loss(y_dec_MD: torch.Tensor, target_MD: torch.Tensor) -> torch.Tensor:
    """Squared error averaged over positions and dimensions: the broken original's only term."""
    return F.mse_loss(y_dec_MD, target_MD)


def norm_loss(y_dec_MD: torch.Tensor, target_MD: torch.Tensor, mean_norm: float) -> torch.Tensor:
    """Squared error of y_dec's norm in units of the encoder's mean norm: what the cosine leaves free."""
    difference = y_dec_MD.norm(dim=-1) - target_MD.norm(dim=-1)
    return (difference / mean_norm).square().mean()


def moment_loss(y_dec_MD: torch.Tensor, encoder: EncoderStatistics) -> torch.Tensor:
    """Squared distance of y_dec's per-dimension mean and deviation from the encoder's.

    Averaged over dimensions, in units of the encoder's mean variance, so that 1 is large in any
    space (the generative moment matching of Li, Swersky & Zemel 2015, first two moments).
    """
    scale = encoder.std.square().mean()
    off_mean = (y_dec_MD.mean(0) - encoder.mean).square().mean()
    off_std = (y_dec_MD.std(0, correction=0) - encoder.std).square().mean()
    return (off_mean + off_std) / scale


def variance_loss(y_cos_MD: torch.Tensor, encoder: EncoderStatistics) -> torch.Tensor:
    """Hinge on y_cos's per-dimension deviation, scaled to the targets' own.

    VICReg's `relu(1 - std)` (Bardes et al. 2022) can never reach zero for unit vectors, whose
    deviations are about 1/sqrt(D); relative to the targets it can.
    """
    live = encoder.unit_std > DEAD_SHARE * encoder.unit_std.mean()
    return F.relu(1 - y_cos_MD.std(0, correction=0)[live] / encoder.unit_std[live]).mean()


def infonce_loss(
    y_cos_AD: torch.Tensor,
    target_AD: torch.Tensor,
    extra_ED: torch.Tensor,
    forbidden_AX: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018): which target follows each anchor.

    All vectors unit length. Anchor i's answer is target i; its negatives are the other targets
    and the extra negatives, except where `forbidden_AX` [A, A + E] (see `forbidden_negatives`).
    """
    candidates = torch.cat([target_AD, extra_ED])
    logits = (y_cos_AD @ candidates.T / temperature).masked_fill(forbidden_AX, -torch.inf)
    answers = torch.arange(len(y_cos_AD), device=logits.device)
    return F.cross_entropy(logits, answers)


@torch.no_grad()
def forbidden_negatives(
    target_AD: torch.Tensor,
    extra_ED: torch.Tensor,
    anchor_row_A: torch.Tensor,
    anchor_doc_A: torch.Tensor,
    extra_row_E: torch.Tensor,
    extra_doc_E: torch.Tensor,
    reach: int,
    duplicate_cosine: float,
) -> torch.Tensor:
    """Which candidates must not count against an anchor: bool [A, A + E], False on the diagonal.

    `anchor_row_A` is the row of the last chunk that the anchor has read; its target is the next
    row. Forbidden are the anchor's own context (the `reach` rows up to it in its document) and
    whatever is nearly its target (cosine over `duplicate_cosine`): the same content again.
    """
    candidate_row = torch.cat([anchor_row_A + 1, extra_row_E])
    candidate_doc = torch.cat([anchor_doc_A, extra_doc_E])
    back = anchor_row_A[:, None] - candidate_row[None]
    context = (anchor_doc_A[:, None] == candidate_doc[None]) & (back >= 0) & (back < reach)
    same = target_AD @ torch.cat([target_AD, extra_ED]).T > duplicate_cosine
    forbidden = context | same
    forbidden[:, : len(anchor_row_A)].fill_diagonal_(False)
    return forbidden


def loss_terms(prediction: Prediction, vectors: BatchVectors, encoder: EncoderStatistics, config: LossConfig) -> dict[str, torch.Tensor]:
    """Every term with a weight above 0, unweighted, by its name in `LossConfig`."""
    y_dec, y_cos = prediction.decoder[vectors.valid], prediction.cosine[vectors.valid]
    target = vectors.targets[vectors.valid]
    terms: dict[str, torch.Tensor] = {}
    if config.regression:
        terms["regression"] = regression_loss(y_dec, target)
    if config.norm:
        terms["norm"] = norm_loss(y_dec, target, encoder.norm)
    if config.infonce:
        unit = F.normalize(vectors.targets[vectors.anchors], dim=-1)
        extra = F.normalize(vectors.negatives, dim=-1)
        reach = max(EXCLUDED_BEFORE, vectors.targets.shape[1])
        rows = (vectors.anchor_rows, vectors.anchor_docs, vectors.negative_rows, vectors.negative_docs)
        forbidden = forbidden_negatives(unit, extra, *rows, reach, config.duplicate_cosine)
        terms["infonce"] = infonce_loss(prediction.cosine[vectors.anchors], unit, extra, forbidden, config.temperature)
    if config.moments:
        terms["moments"] = moment_loss(y_dec, encoder)
    if config.variance:
        terms["variance"] = variance_loss(y_cos, encoder)
    if config.mse:
        terms["mse"] = mse_loss(y_dec, target)
    return terms


def weighted(terms: dict[str, torch.Tensor], config: LossConfig) -> dict[str, torch.Tensor]:
    """Each term times its weight; their sum is what is minimised."""
    return {name: getattr(config, name) * term for name, term in terms.items()}


# The order is that of the sum: another one would round differently.
for _name in ("regression", "norm", "infonce", "moments", "variance", "mse"):
    LOSS_TERMS.register(_name)(loss_terms)
