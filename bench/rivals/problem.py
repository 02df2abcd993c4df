"""What every rival is fitted on and judged by: the training chunks in the axes of their covariance, and the evaluation windows.

Shapes: n targets, T chunks of context (the latest first), D dimensions, K neighbours. Everything is centred on the training mean and
rotated into the eigenvectors of the training covariance, largest variance first. A rotation changes neither cosines nor ranks.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from lvm.data.dataset import Dataset
from lvm.data.statistics import training_mean
from lvm.data.windows import Windows, make_windows, retrieval_ranks, unit

BLOCK = 4096
"""Targets whose contexts are in memory at once."""

INDEX = 100_000
"""Most training contexts that a neighbour is looked for in."""


@dataclass
class Problem:
    """One dataset at one context length on one device. Results are kept by key, since many candidates share their parts."""

    dataset: Dataset
    length: int
    device: torch.device
    windows: dict[str, Windows]
    """By split: those that are judged ('val', and 'test' when it is looked at)."""

    mean: torch.Tensor
    """[D]: the training mean, rotated."""

    axes: torch.Tensor
    """[D, D]: a column for each eigenvector of the training covariance."""

    variances: torch.Tensor
    """[D]: the eigenvalues, descending, none below a millionth of the largest."""

    centred: torch.Tensor
    """[all rows, D]: chunks minus the mean, rotated."""

    kept: dict[Hashable, Any] = field(default_factory=dict)

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, called once for each key."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def examples(self, back: bool = False) -> np.ndarray:
        """Training rows with a whole context before them; with `back`, after them (the document read backwards)."""
        rows = self.dataset.rows("train")
        docs = self.dataset.row_doc[rows]
        inside = rows + self.length < self.dataset.starts[docs + 1] if back else rows - self.length >= self.dataset.starts[docs]
        return rows[inside]

    def index_rows(self) -> np.ndarray:
        """The training rows whose contexts are indexed: all examples or a fixed sample."""
        rows = self.examples()
        return rows if len(rows) <= INDEX else np.sort(np.random.default_rng(0).choice(rows, INDEX, replace=False))

    def rows(self, split: str) -> np.ndarray:
        """Target rows: of the windows of 'val' or 'test', or the indexed ones for 'train'."""
        return self.index_rows() if split == "train" else self.windows[split].targets

    def contexts(self, rows: np.ndarray, back: bool = False) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Blocks of `rows` with their contexts [n, T, D], the nearest chunk first."""
        step = np.arange(1, self.length + 1) * (1 if back else -1)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            yield block, self.centred[torch.as_tensor(block[:, None] + step, device=self.device)]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor], split: str) -> torch.Tensor:
        """`function` of the contexts of a split, [n, D']."""
        return torch.cat([function(x) for _, x in self.contexts(self.rows(split))])

    def ewma(self, split: str, decay: float) -> torch.Tensor:
        """Exponentially weighted mean of each context of a split, [n, D]."""
        return self.keep(("ewma", split, decay), lambda: self.map(partial(weighted, decay=decay), split))

    def cosines(self, predicted_ND: torch.Tensor, split: str) -> np.ndarray:
        """Cosine of mean + centred prediction and target, for each window."""
        target = self.centred[torch.as_tensor(self.windows[split].targets, device=self.device)] + self.mean
        return F.cosine_similarity(predicted_ND + self.mean, target).cpu().numpy()

    def pool(self, split: str) -> torch.Tensor:
        """The pool of a split, of unit length and rotated, [P, D]."""
        rows = self.windows[split].pool
        return self.keep(("pool", split), lambda: unit(self.dataset.vectors[rows], self.device) @ self.axes)

    def ranks(self, query_ND: torch.Tensor, split: str, penalty_P: torch.Tensor | None = None) -> np.ndarray:
        """Rank of each answer by unit query times pool, minus `penalty_P`, a term of each pool chunk, where one is given."""
        windows, pool, query = self.windows[split], self.pool(split), F.normalize(query_ND, dim=1)
        if penalty_P is not None:
            query, pool = torch.cat([query, -torch.ones_like(query[:, :1])], 1), torch.cat([pool, penalty_P[:, None]], 1)
        return retrieval_ranks(query, pool, windows.answer, windows.excluded)


def weighted(x_nTD: torch.Tensor, decay: float) -> torch.Tensor:
    """Exponentially weighted mean of contexts whose latest chunk comes first, [n, D]."""
    weights = decay ** torch.arange(x_nTD.shape[1], device=x_nTD.device, dtype=x_nTD.dtype)
    return torch.einsum("ntd,t->nd", x_nTD, weights / weights.sum())


def open_problem(dataset: Dataset, length: int, size: int, device: torch.device, splits: tuple[str, ...]) -> Problem:
    """Prepare the windows of `splits` and rotate the dataset. Raises `InputError` as `make_windows` does."""
    windows = {split: make_windows(dataset, split, length, size, device) for split in splits}
    mean = training_mean(dataset).to(device)
    rows = dataset.rows("train")
    total = torch.zeros(dataset.dim, dataset.dim, dtype=torch.float64, device=device)
    for start in range(0, len(rows), 4 * BLOCK):
        x = torch.from_numpy(dataset.vectors[rows[start : start + 4 * BLOCK]]).to(device) - mean
        total += (x.T @ x).double()
    variances, axes = torch.linalg.eigh(total / len(rows))
    variances, axes = variances.flip(0), axes.flip(1).float()
    blocks = range(0, dataset.n_rows, 4 * BLOCK)
    parts = [torch.from_numpy(np.array(dataset.vectors[b : b + 4 * BLOCK])).to(device) for b in blocks]
    centred = torch.cat([(part - mean) @ axes for part in parts])
    return Problem(dataset, length, device, windows, mean @ axes, axes, variances.clamp_min(1e-6 * variances[0]).float(), centred)
