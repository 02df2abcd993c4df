"""The arms of the decoder test: one decoder on vectors that are further and further from real ones.

As in a controlled experiment, an arm differs from the others in one thing alone, the vectors that it decodes:

| arm | decodes | shows |
|---|---|---|
| A | encode(x), x the true next chunk | the ceiling: what the decoder can do |
| B | encode(x) at unit length | whether the scale matters to the decoder; the same as A if the recipe normalises |
| C | y_dec, the model's prediction | what a reader gets |
| D | the real chunk nearest to y_dec | what the decoder makes of a real vector near the prediction |
| E | y_dec rescaled to the encoder's norm | whether C suffers from its scale |

Two real texts are scored for comparison: that nearest chunk itself ("nearest"), and the last chunk of the
context ("copy_last").
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from lvm.decoding.neighbours import RealChunk
from lvm.decoding.protocol import Decoded, Decoder
from lvm.decoding.text_metrics import length_buckets, text_scores
from lvm.evaluation.intervals import Interval, document_interval
from lvm.models import Predictor

REAL_TEXTS = ("nearest", "copy_last")
"""Real texts that are compared with the arms."""


@dataclass(frozen=True)
class TextWindow:
    """A window of a dataset as texts."""

    doc_id: str
    chunk_index: int
    """Of the true next chunk."""

    context: list[str]
    truth: str
    """The true next chunk."""

    n_tokens: int
    """Length of the true next chunk in the encoder's tokens."""


@dataclass(frozen=True)
class Arms:
    """The texts of every arm for the same N windows."""

    windows: list[TextWindow]
    docs: np.ndarray
    """int64 [N]: document number of each window."""

    nearest: list[RealChunk]
    """The real chunk nearest to each prediction."""

    decoded: dict[str, Sequence[Decoded]]
    """By arm; without B if B equals A."""

    truth_cosine: dict[str, np.ndarray]
    """By arm and real text, float32 [N]: cosine of the text's embedding to that of the true next chunk."""

    def texts(self, name: str) -> list[str]:
        """The texts of an arm, or the real texts called `name`."""
        if name == "nearest":
            return [chunk.text for chunk in self.nearest]
        if name == "copy_last":
            return [window.context[-1] for window in self.windows]
        return [found.text for found in self.decoded[name]]

    def roundtrip(self, arm: str) -> float:
        """Mean cosine between the vectors that an arm decoded and the embeddings of its texts."""
        return float(np.mean([found.roundtrip_cosine for found in self.decoded[arm]]))

    def scores(self) -> dict[str, dict[str, Any]]:
        """Every text metric against the true next chunks: over all windows, and by length of the true chunk."""
        buckets = length_buckets(np.array([window.n_tokens for window in self.windows]))
        every = np.arange(len(self.windows))
        out = {}
        for name in (*self.decoded, *REAL_TEXTS):
            lengths = {bucket: self._scores(name, rows) for bucket, rows in buckets.items()}
            out[name] = {**self._scores(name, every), "by_length": lengths}
        if "B" not in out:
            out["B"] = {**out["A"], "same_as": "A"}
        return out

    def _scores(self, name: str, rows: np.ndarray) -> dict[str, Any]:
        truth = [self.windows[i].truth for i in rows]
        if name in self.decoded:
            return decoded_scores([self.decoded[name][i] for i in rows], truth)
        texts = self.texts(name)
        return asdict(text_scores([texts[i] for i in rows], truth))

    def truth_cosines(self) -> dict[str, Interval]:
        """Whether a text is about the right thing: the mean of `truth_cosine` by arm and real text.

        `C_over_<real text>` is the lead of C over a text that needs no decoder, paired by window. The
        intervals are 95 % intervals over documents.
        """
        out = {name: document_interval(cosine, self.docs) for name, cosine in self.truth_cosine.items()}
        for other in REAL_TEXTS:
            out[f"C_over_{other}"] = document_interval(self.truth_cosine["C"] - self.truth_cosine[other], self.docs)
        return out

    def samples(self) -> list[dict[str, Any]]:
        """The texts of each window side by side."""
        inverted, ceiling, copied = (self.texts(name) for name in ("C", "A", "copy_last"))
        return [
            {**asdict(window), "nearest": asdict(self.nearest[i]), "inverted": inverted[i], "ceiling": ceiling[i], "copy_last": copied[i]}
            for i, window in enumerate(self.windows)
        ]


def decoded_scores(found: Sequence[Decoded], truth: Sequence[str]) -> dict[str, Any]:
    """Every text metric of decoded texts against `truth`, with the mean round-trip cosine and the mean number of steps."""
    return {
        **asdict(text_scores([one.text for one in found], truth)),
        "roundtrip_cosine": float(np.mean([one.roundtrip_cosine for one in found])),
        "steps": float(np.mean([one.steps for one in found])),
    }


def encoder_norm(model: Predictor) -> float:
    """Root mean square norm of the embeddings that the model was trained on, from their stored moments."""
    return float((model.mean.square() + model.std.square()).sum().sqrt())


def decode_arms(
    decoder: Decoder, true_ND: np.ndarray, y_dec_ND: np.ndarray, nearest_ND: np.ndarray, norm: float
) -> dict[str, Sequence[Decoded]]:
    """Decode every arm. `norm` is the encoder's. B is left out if the recipe normalises, since it equals A then."""
    vectors = {"A": true_ND, "C": y_dec_ND, "D": nearest_ND, "E": _scaled(y_dec_ND, norm)}
    if not decoder.recipe.normalize:
        vectors["B"] = _scaled(true_ND, 1.0)
    return {arm: decoder.decode(vectors[arm]) for arm in sorted(vectors)}


def row_cosines(vectors_ND: np.ndarray, others_ND: np.ndarray) -> np.ndarray:
    """Cosine of each row of `vectors_ND` to the same row of `others_ND`: float32 [N]."""
    return F.cosine_similarity(torch.from_numpy(vectors_ND), torch.from_numpy(others_ND), dim=-1).numpy()


def _scaled(vectors_ND: np.ndarray, norm: float) -> np.ndarray:
    return vectors_ND * (norm / np.linalg.norm(vectors_ND, axis=1, keepdims=True))
