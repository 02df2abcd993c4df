"""The vectors of a batch, on the device."""

from dataclasses import dataclass

import numpy as np
import torch

from lvm.data.dataset import Dataset
from lvm.training.sampler import Batch


@dataclass(frozen=True)
class BatchVectors:
    """The tensors of a batch, on the device. S stretches, L positions, A anchors, E hard negatives."""

    context: torch.Tensor
    """[S, L, D]"""

    targets: torch.Tensor
    """[S, L, D]: at each position the chunk after the one in `context`."""

    valid: torch.Tensor
    """bool [S, L]: False after the end of a document."""

    anchors: torch.Tensor
    """bool [S, L]: the positions that take part in the contrastive term."""

    anchor_rows: torch.Tensor
    """int64 [A]: row in the dataset of the last chunk that each anchor has read."""

    anchor_docs: torch.Tensor
    """int64 [A]: number of its document."""

    negatives: torch.Tensor
    """[E, D]: hard negatives of all stretches."""

    negative_rows: torch.Tensor
    """int64 [E]"""

    negative_docs: torch.Tensor
    """int64 [E]"""


class BatchReader:
    """Reads batches of `dataset`. On an accelerator all its vectors are kept in the device's memory."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        self.vectors = torch.from_numpy(np.ascontiguousarray(dataset.vectors)).to(device) if device.type != "cpu" else None

    def __call__(self, batch: Batch) -> BatchVectors:
        """All vectors of the batch: the loss needs them also in a process that predicts only a share."""
        rows = torch.from_numpy(batch.rows)
        negative_rows = torch.from_numpy(batch.negatives.reshape(-1))
        docs = torch.from_numpy(batch.docs)
        negative_docs = docs.repeat_interleave(batch.negatives.shape[1])[negative_rows >= 0]
        negative_rows = negative_rows[negative_rows >= 0]
        anchors = torch.from_numpy(batch.anchors)
        stretch = self._read(rows)
        return BatchVectors(
            context=stretch[:, :-1],
            targets=stretch[:, 1:],
            valid=torch.from_numpy(batch.valid).to(self.device),
            anchors=anchors.to(self.device),
            anchor_rows=rows[:, :-1][anchors].to(self.device),
            anchor_docs=docs[:, None].expand_as(anchors)[anchors].to(self.device),
            negatives=self._read(negative_rows),
            negative_rows=negative_rows.to(self.device),
            negative_docs=negative_docs.to(self.device),
        )

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        if self.vectors is None:
            return torch.from_numpy(self.dataset.vectors[rows.numpy()])
        return self.vectors[rows.to(self.device)]
