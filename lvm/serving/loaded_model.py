"""A model in memory, ready to serve: loaded, verified by its golden predictions, warmed up."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from lvm.data.recipe import EncoderRecipe
from lvm.evaluation.record import read_record
from lvm.gates.result import GateResult, verdict
from lvm.models.checkpoint import Checkpoint, exact_float32, load_checkpoint

UNIT_TOLERANCE = 0.01
"""How far a norm may be from 1 where the recipe makes unit vectors; bfloat16 rounds to within 0.004."""

NORM_FACTOR = 2.0
"""For other recipes: how far beyond the smallest and greatest norm of the training vectors a norm may be."""


@dataclass(frozen=True)
class PredictionBatch:
    """Predictions for a batch of contexts."""

    decoder: np.ndarray
    """float32 [B, D]: y_dec, in the encoder's raw distribution."""

    cosine: np.ndarray
    """float32 [B, D]: y_cos, unit length."""

    out_of_distribution: np.ndarray
    """bool [B]: the context contains a vector farther from the training embeddings than all but one in a thousand validation chunks."""

    def part(self, start: int, stop: int) -> "PredictionBatch":
        """The predictions of contexts `start` to `stop`."""
        return PredictionBatch(self.decoder[start:stop], self.cosine[start:stop], self.out_of_distribution[start:stop])


class LoadedModel:
    """A model that serves predictions."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load the model in a folder, or in the folder that a link points to.

        Raises `InputError` or `GateRefused` when it does not load or does not reproduce its golden predictions.
        """
        self.path = path.resolve()
        self.name = self.path.name
        """The exported version, such as `lstm-3f2a9c-v4`; part of every response."""

        self.checkpoint: Checkpoint = load_checkpoint(self.path, device)
        self.checkpoint.config.require_forward(self.path)
        self._record = read_record(self.path)
        self.example_contexts = load_file(self.path / "golden.safetensors")["inputs"].numpy()
        """float32 [32, T, D]: contexts of real text."""

        self.predict(self.example_contexts)
        started = time.perf_counter()
        self.predict(self.example_contexts)
        self.seconds_per_chunk = (time.perf_counter() - started) / (self.example_contexts.shape[0] * self.example_contexts.shape[1])
        """Seconds that a chunk of context takes in a large batch."""

    @property
    def recipe(self) -> EncoderRecipe:
        """The encoder whose vectors it reads and predicts."""
        return self.checkpoint.config.recipe

    @cached_property
    def recipe_id(self) -> str:
        """The recipe's id; part of every response."""
        return self.recipe.id

    @property
    def max_context(self) -> int:
        """Greatest number of chunks in a context: the length that it was trained on."""
        return self.checkpoint.config.train.sampler.length

    @cached_property
    def norm_range(self) -> tuple[float, float]:
        """Smallest and greatest norm of a vector that can be of its recipe."""
        if self.recipe.normalize:
            return 1 - UNIT_TOLERANCE, 1 + UNIT_TOLERANCE
        low, high = self.checkpoint.ood.norms
        return low / NORM_FACTOR, high * NORM_FACTOR

    @torch.inference_mode()
    def predict(self, contexts_BTD: np.ndarray) -> PredictionBatch:
        """Predict the chunk after each context: float32 [B, T, D], already checked."""
        model, ood = self.checkpoint.model, self.checkpoint.ood
        x = torch.tensor(contexts_BTD, device=model.mean.device)
        with exact_float32():
            y_dec, y_cos = model(x, return_both=True)
        out_of_distribution = (ood.distances(x) > ood.limit).any(1)
        return PredictionBatch(y_dec.cpu().numpy(), y_cos.cpu().numpy(), out_of_distribution.cpu().numpy())

    def info(self) -> dict[str, Any]:
        """The model and its evaluation, as JSON values."""
        config, record = self.checkpoint.config, self._record
        return {
            "model": self.name,
            "arch": config.arch,
            "parameters": config.parameters,
            "context_length": config.train.context_length,
            "longest_context": self.max_context,
            "recipe": {"id": self.recipe_id, **self.recipe.model_dump()},
            "dataset_digest": config.dataset_digest,
            "code_version": config.code_version,
            "golden_difference": self.checkpoint.parity,
            "verdict": verdict([GateResult(**gate) for gate in record["gates"]]) if record else None,
            "gates": record["gates"] if record else None,
            "metrics": {split: record[split]["metrics"] for split in ("val", "test")} if record else None,
            "best_baseline": record["test"]["best_baseline"] if record else None,
        }
