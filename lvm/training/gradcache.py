"""Gradients of one batch: in one pass, or in pieces when memory is short or several processes share it.

InfoNCE, moments and the variance hinge are statistics of the whole batch, so the gradients of its pieces cannot simply be added.
GradCache (Gao et al. 2021, arXiv 2101.06983) gives the exact gradients all the same. It predicts every piece without a graph, computes
the loss of all predictions together and its gradient with respect to them, then runs each piece again and sends its part of that
gradient back through the model.

Several processes do this with a share of the batch each. The predictions are gathered, so that every process computes the same loss of
the whole batch, and the weights' gradients are summed. DistributedDataParallel would not do: it averages gradients of losses that do not
depend on other processes' examples, and these losses do.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from lvm.config import TrainConfig
from lvm.data.statistics import EncoderStatistics
from lvm.errors import InputError, ran_out_of_memory
from lvm.models import Prediction, Predictor
from lvm.training.batches import BatchVectors
from lvm.training.distributed import Ranks
from lvm.training.losses import loss_terms, weighted
from lvm.training.optimizer import gradient_norm, gradient_shares, shares

T = TypeVar("T")

TOTAL = "total"
"""Name of the weighted sum beside the terms."""


@dataclass(frozen=True)
class Losses:
    """Losses of a batch, as scalars without a graph."""

    terms: dict[str, torch.Tensor]
    """Each term, unweighted."""

    total: torch.Tensor
    """Their weighted sum."""

    shares: dict[str, float]
    """Norm of each term's gradient over the largest one's; empty when it was not asked for."""


class ShortOfMemory(Exception):
    """One of the processes ran out of memory. All of them raise this at the same place."""


class BatchGradients:
    """Fills the gradients of `model`'s weights from a batch.

    `micro_batch` is the number of stretches in one forward pass, 0 for all of them. When memory runs out it is halved and the batch is
    done again. The batch, and so the gradients, stay the same.
    """

    def __init__(self, model: Predictor, config: TrainConfig, statistics: EncoderStatistics, device: torch.device, ranks: Ranks) -> None:
        self.model, self.config, self.statistics, self.device, self.ranks = model, config, statistics, device, ranks
        self.weights = list(model.parameters())
        self.micro_batch = 0
        self.bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()

    def __call__(self, vectors: BatchVectors, step: int, with_shares: bool) -> Losses:
        """Fill the gradients of step `step`, the same in every process.

        Raises `InputError` when there are fewer stretches than processes, or memory is too small for a single stretch.
        """
        stretches = len(vectors.context)
        if stretches < self.ranks.world:
            few = f"a batch holds {stretches} stretches, fewer than there are processes ({self.ranks.world})"
            raise InputError(f"{few}: train on fewer devices, or on more documents with a larger sampler.stretches")
        while True:
            self.model.zero_grad(set_to_none=True)
            try:
                if self.ranks.world == 1 and not 0 < self.micro_batch < stretches:
                    return self._together(lambda: self._whole(vectors, with_shares))
                return self._divided(vectors, step, with_shares)
            except ShortOfMemory:
                pass  # leave this block first: the exception keeps the failed attempt's tensors alive
            self._halve(stretches)

    def _halve(self, stretches: int) -> None:
        """Halve the pieces; raises `InputError` when they are single stretches already."""
        largest = -(-stretches // self.ranks.world)
        now = min(self.micro_batch or largest, largest)
        if now == 1:
            remedy = "lower sampler.length, sampler.stretches, sampler.anchors_per_document or model.width, with --fresh"
            raise InputError(f"out of memory on {self.device} even with one stretch at a time: {remedy}")
        self.micro_batch = -(-now // 2)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).empty_cache()

    def _together(self, work: Callable[[], T]) -> T:
        """Run `work`, which exchanges nothing with other processes. Raises `ShortOfMemory` in all of them when one ran out of memory."""
        done: list[T] = []
        try:
            done.append(work())
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
        if self.ranks.any(not done):
            raise ShortOfMemory
        return done[0]

    def _loss(self, prediction: Prediction, vectors: BatchVectors) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
        """Terms, weighted terms and their sum."""
        terms = loss_terms(prediction, vectors, self.statistics, self.config.loss)
        parts = weighted(terms, self.config.loss)
        return terms, parts, torch.stack(list(parts.values())).sum()

    def _whole(self, vectors: BatchVectors, with_shares: bool) -> Losses:
        """The batch in one pass."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            prediction = self.model(vectors.context)
        terms, parts, total = self._loss(prediction, vectors)
        found = gradient_shares(parts, self.weights) if with_shares else {}
        total.backward()
        return Losses(detached(terms), total.detach(), found)

    def _divided(self, vectors: BatchVectors, step: int, with_shares: bool) -> Losses:
        """This process's share of the batch, in pieces."""
        own = self.ranks.share(len(vectors.context))
        size = self.micro_batch or len(vectors.context)
        pieces = [slice(start, min(start + size, own.stop)) for start in range(own.start, own.stop, size)]
        kept, gathered = self._together(lambda: self._predict_pieces(vectors, step, pieces))
        # Each process has zeros outside its share, so the sum has all predictions, also when shares differ in size.
        self.ranks.sum([gathered])
        losses, gradients = self._together(lambda: self._send_back(vectors, step, pieces, kept, gathered, with_shares))
        # A weight that no term reaches has no gradient in any process.
        self.ranks.sum([g for of_part in gradients.values() for g in of_part if g is not None])
        for weight, gradient in zip(self.weights, gradients.pop(TOTAL), strict=True):
            weight.grad = gradient
        return replace(losses, shares=shares({name: gradient_norm(g) for name, g in gradients.items()}) if gradients else {})

    def _predict_pieces(self, vectors: BatchVectors, step: int, pieces: list[slice]) -> tuple[list[Prediction], torch.Tensor]:
        """The predictions with their graph if there is one piece, else none; and both heads' values [2, S, L, D], else zero."""
        keep = len(pieces) == 1
        with torch.set_grad_enabled(keep), self._replayable(pieces):
            predictions = [self._predict(vectors.context[piece], step, piece.start) for piece in pieces]
        values = torch.zeros(2, *vectors.context.shape, device=self.device)
        for piece, prediction in zip(pieces, predictions, strict=True):
            values[0, piece], values[1, piece] = prediction.decoder.detach(), prediction.cosine.detach()
        return predictions if keep else [], values

    def _send_back(
        self, vectors: BatchVectors, step: int, pieces: list[slice], kept: list[Prediction], values: torch.Tensor, with_shares: bool
    ) -> tuple[Losses, dict[str, list[torch.Tensor | None]]]:
        """Losses of all predictions `values`, and the pieces' part of the gradients: of `TOTAL` and, `with_shares`, of each term."""
        outputs = [part.detach().requires_grad_() for part in values]
        terms, parts, total = self._loss(Prediction(*outputs), vectors)
        wanted = {**(parts if with_shares else {}), TOTAL: total}
        # The total comes last and frees the loss's graph, so that its logits do not take memory while the pieces run.
        outer = {n: torch.autograd.grad(part, outputs, retain_graph=n != TOTAL, allow_unused=True) for n, part in wanted.items()}
        sums: dict[str, list[torch.Tensor | None]] = {name: [None] * len(self.weights) for name in wanted}
        for piece in pieces:
            with self._replayable(pieces):
                prediction = kept[0] if kept else self._predict(vectors.context[piece], step, piece.start)
            for name, gradients in outer.items():
                reached = [(y, g[piece]) for y, g in zip(prediction, gradients, strict=True) if g is not None]
                ys, gs = zip(*reached, strict=True)
                inner = torch.autograd.grad(ys, self.weights, gs, retain_graph=name != TOTAL, allow_unused=True)
                sums[name] = [added(a, b) for a, b in zip(sums[name], inner, strict=True)]
        return Losses(detached(terms), total.detach(), {}), sums

    def _predict(self, context: torch.Tensor, step: int, first: int) -> Prediction:
        """Predict a piece of a batch that begins at stretch `first`.

        Dropout is seeded by (seed, step, first). It is the same when the piece runs again, in any process, and resuming a run needs no
        state of it.
        """
        torch.manual_seed(int(np.random.default_rng([self.config.seed, step, first]).integers(2**63)))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            prediction: Prediction = self.model(context)
        return prediction

    def _replayable(self, pieces: list[slice]) -> AbstractContextManager[None]:
        """A context without cuDNN when pieces run twice and it applies dropout between layers: no seed resets its random state."""
        stacked = any(isinstance(m, nn.RNNBase) and m.dropout > 0 for m in self.model.modules())
        if self.device.type == "cuda" and stacked and len(pieces) > 1:
            return torch.backends.cudnn.flags(enabled=False)
        return nullcontext()


def detached(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The values without their graphs."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def added(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    """The sum; None counts as zero."""
    return a + b if a is not None and b is not None else a if b is None else b
