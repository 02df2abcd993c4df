"""The arms of the decoder test: the same decoder on vectors that get further from real ones.

| arm | decodes | says |
|---|---|---|
| A | encode(x), x the true next chunk | the ceiling: what the decoder can do |
| B | encode(x) at unit length | whether the decoder minds the scale; A itself where the recipe normalises |
| C | y_dec, the model's prediction | what a reader gets |
| D | the real chunk nearest to y_dec | what the decoder makes of a real vector near the prediction |
| E | y_dec at the encoder's own norm | whether C's scale is to blame |

Beside them stand two texts that no decoder wrote: that real chunk's own ("nearest"), and the last
chunk of the context ("copy_last").
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from lvm.decoding.neighbours import RealChunk
from lvm.decoding.protocol import Decoded, Decoder
from lvm.decoding.text_metrics import length_buckets, text_scores
from lvm.evaluation.intervals import Interval, document_bootstrap
from lvm.models import Predictor

WRITTEN = ("nearest", "copy_last")
"""Texts that stand beside the arms, taken as they are."""


@dataclass(frozen=True)
class Question:
    """One window, as texts."""

    doc_id: str
    chunk_index: int
    """Of the true next chunk."""

    context: list[str]
    truth: str
    n_tokens: int
    """Length of the true next chunk in the encoder's tokens."""


@dataclass(frozen=True)
class Arms:
    """Every arm's texts for the same N windows."""

    questions: list[Question]
    docs: np.ndarray
    """int64 [N]: document number of each window."""

    nearest: list[RealChunk]
    """The real chunk nearest to each prediction."""

    decoded: dict[str, Sequence[Decoded]]
    """By arm; B is left out where it is A."""

    cosine: dict[str, np.ndarray]
    """float32 [N]: of each text's own embedding to the true next chunk's, by arm and written text."""

    def texts(self, name: str) -> list[str]:
        """The texts of an arm or a written text."""
        if name == "nearest":
            return [chunk.text for chunk in self.nearest]
        if name == "copy_last":
            return [question.context[-1] for question in self.questions]
        return [found.text for found in self.decoded[name]]

    def roundtrip(self, arm: str) -> float:
        """Mean cosine of an arm's texts, embedded again, to the vectors that were decoded."""
        return float(np.mean([found.roundtrip_cosine for found in self.decoded[arm]]))

    def scores(self) -> dict[str, dict[str, Any]]:
        """Every text metric beside the true next chunk's text, for all windows and by its length."""
        buckets = length_buckets(np.array([question.n_tokens for question in self.questions]))
        every = np.arange(len(self.questions))
        out = {}
        for name in (*self.decoded, *WRITTEN):
            lengths = {bucket: self._scores(name, rows) for bucket, rows in buckets.items()}
            out[name] = {**self._scores(name, every), "by_length": lengths}
        if "B" not in out:
            out["B"] = {**out["A"], "same_as": "A"}
        return out

    def _scores(self, name: str, rows: np.ndarray) -> dict[str, Any]:
        truth = [self.questions[i].truth for i in rows]
        if name in self.decoded:
            return decoded_scores([self.decoded[name][i] for i in rows], truth)
        texts = self.texts(name)
        return asdict(text_scores([texts[i] for i in rows], truth))

    def about(self) -> dict[str, Interval]:
        """Whether a text is about the right thing: cosine of its embedding to the true next chunk's.

        And C's lead over the texts that need no decoder, paired by window; 95 % intervals over documents.
        """
        out = {name: document_bootstrap(cosine, self.docs) for name, cosine in self.cosine.items()}
        for other in WRITTEN:
            out[f"C_over_{other}"] = document_bootstrap(self.cosine["C"] - self.cosine[other], self.docs)
        return out

    def samples(self) -> list[dict[str, Any]]:
        """Each window's texts side by side, the real chunk first."""
        inverted, ceiling, copied = (self.texts(name) for name in ("C", "A", "copy_last"))
        return [
            {**asdict(question), "nearest": asdict(self.nearest[i]), "inverted": inverted[i], "ceiling": ceiling[i], "copy_last": copied[i]}
            for i, question in enumerate(self.questions)
        ]


def decoded_scores(found: Sequence[Decoded], truth: Sequence[str]) -> dict[str, Any]:
    """Every text metric of decoded texts, each beside the one that it should be, with mean round trip and steps."""
    return {
        **asdict(text_scores([one.text for one in found], truth)),
        "roundtrip_cosine": float(np.mean([one.roundtrip_cosine for one in found])),
        "steps": float(np.mean([one.steps for one in found])),
    }


def encoder_norm(model: Predictor) -> float:
    """Norm of the encoder's vectors: the root mean square over those that the model was trained on, from its moments."""
    return float((model.mean.square() + model.std.square()).sum().sqrt())


def decode_arms(
    decoder: Decoder, true_ND: np.ndarray, y_dec_ND: np.ndarray, nearest_ND: np.ndarray, norm: float
) -> dict[str, Sequence[Decoded]]:
    """Decode the arms. `norm` is the encoder's own; B is left out where the recipe makes unit length, since it is A."""
    vectors = {"A": true_ND, "C": y_dec_ND, "D": nearest_ND, "E": _scaled(y_dec_ND, norm)}
    if not decoder.recipe.normalize:
        vectors["B"] = _scaled(true_ND, 1.0)
    return {arm: decoder.decode(vectors[arm]) for arm in sorted(vectors)}


def cosines(decoder: Decoder, texts: Mapping[str, list[str]], true_ND: np.ndarray) -> dict[str, np.ndarray]:
    """Cosine of each text's embedding to the true next chunk's, float32 [N], by name."""
    truth = torch.from_numpy(true_ND)
    return {
        name: F.cosine_similarity(torch.from_numpy(decoder.encoder.encode(found)), truth, dim=-1).numpy() for name, found in texts.items()
    }


def _scaled(vectors_ND: np.ndarray, norm: float) -> np.ndarray:
    return vectors_ND * (norm / np.linalg.norm(vectors_ND, axis=1, keepdims=True))
