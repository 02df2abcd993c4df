"""A model as it is served: loaded, proved by its golden predictions, warm."""

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
from lvm.models.checkpoint import Checkpoint, exact_float32, load_checkpoint

UNIT_TOLERANCE = 0.01
"""How far a norm may be from 1 where the recipe gives unit vectors; bfloat16 rounds to within .004."""


RAW_FACTOR = 2.0
"""How far beyond the training vectors' least and greatest norm a vector of another recipe may reach."""


@dataclass(frozen=True)
class Predicted:
    """Predictions for a batch of contexts."""

    decoder: np.ndarray
    """float32 [B, D]: y_dec, in the encoder's raw distribution."""

    cosine: np.ndarray
    """float32 [B, D]: y_cos, unit length."""

    out_of_distribution: np.ndarray
    """bool [B]: the context holds a vector farther from the training embeddings than all but one in a thousand unseen ones."""

    def part(self, start: int, stop: int) -> "Predicted":
        """Those of some of the contexts."""
        return Predicted(self.decoder[start:stop], self.cosine[start:stop], self.out_of_distribution[start:stop])


class Served:
    """One model."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load the model of a folder, or of a link to one.

        Raises `InputError` or `GateRefused` when it does not load, or does not reproduce its golden predictions.
        """
        self.path = path.resolve()
        self.name = self.path.name
        """The exported version, as `lstm-3f2a9c-v4`: every answer carries it."""

        self.checkpoint: Checkpoint = load_checkpoint(self.path, device)
        self.checkpoint.config.require_forward(self.path)
        self.verdict = read_record(self.path)
        self.example = load_file(self.path / "golden.safetensors")["inputs"].numpy()
        """float32 [32, T, D]: contexts of real text."""

        self.predict(self.example)
        started = time.perf_counter()
        self.predict(self.example)
        self.seconds_per_chunk = (time.perf_counter() - started) / (self.example.shape[0] * self.example.shape[1])
        """What a chunk of context costs in a large batch, once warm."""

    @property
    def recipe(self) -> EncoderRecipe:
        """Encoder whose vectors it reads and predicts."""
        return self.checkpoint.config.recipe

    @cached_property
    def recipe_id(self) -> str:
        """Of the recipe; every answer carries it."""
        return self.recipe.id

    @property
    def longest(self) -> int:
        """Chunks of context that it was trained on, at most."""
        return self.checkpoint.config.train.sampler.length

    @cached_property
    def norms(self) -> tuple[float, float]:
        """Least and greatest norm of a vector that can be of its recipe."""
        if self.recipe.normalize:
            return 1 - UNIT_TOLERANCE, 1 + UNIT_TOLERANCE
        low, high = self.checkpoint.ood.norms
        return low / RAW_FACTOR, high * RAW_FACTOR

    @torch.inference_mode()
    def predict(self, contexts_BTD: np.ndarray) -> Predicted:
        """Predict the chunk after each context; float32 [B, T, D], checked before."""
        model, ood = self.checkpoint.model, self.checkpoint.ood
        x = torch.tensor(contexts_BTD, device=model.mean.device)
        with exact_float32():
            y_dec, y_cos = model(x, return_both=True)
        out_of_distribution = (ood.distances(x) > ood.limit).any(1)
        return Predicted(y_dec.cpu().numpy(), y_cos.cpu().numpy(), out_of_distribution.cpu().numpy())

    def info(self) -> dict[str, Any]:
        """What it is and what was measured on it, as JSON values."""
        config, verdict = self.checkpoint.config, self.verdict
        measured = {split: verdict[split]["metrics"] for split in ("val", "test")} if verdict else None
        return {
            "model": self.name,
            "arch": config.arch,
            "parameters": config.parameters,
            "context_length": config.train.context_length,
            "longest_context": self.longest,
            "recipe": {"id": self.recipe_id, **self.recipe.model_dump()},
            "dataset_digest": config.dataset_digest,
            "code_version": config.code_version,
            "golden_difference": self.checkpoint.parity,
            "gates": verdict["gates"] if verdict else None,
            "metrics": measured,
            "best_baseline": verdict["test"]["best_baseline"] if verdict else None,
        }
