"""The whole pipeline on windows of a dataset: texts -> encoder -> context -> model -> y_dec -> text.

Nothing stored is trusted on the way: contexts and true next chunks are embedded again from their
texts by the decoder's own encoder, after the gate `encoder_contract` has held it against the store.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lvm.checkpoint import Checkpoint
from lvm.config import GateThresholds
from lvm.corpus.dataset import Dataset
from lvm.decode import Decoder
from lvm.decode.arms import WRITTEN, Arms, Question, cosines, decode_arms, encoder_norm
from lvm.decode.nearest import ChunkLibrary
from lvm.diagnostics.decoder import decoder_abc, encoder_contract
from lvm.diagnostics.gate import GateResult, require
from lvm.windows import make_windows

CONTEXT = 5
"""Chunks of context, fewer where the model is compared at fewer."""

WINDOWS = 100

CORRECTIONS = 1
"""Steps of the decoder in this test: every arm has the same, and more would cost minutes on a CPU."""


@dataclass(frozen=True)
class DecodedWindows:
    """What was decoded, and what the gates say of it."""

    split: str
    arms: Arms
    contract: GateResult
    abc: GateResult

    def summary(self) -> dict[str, Any]:
        """As JSON values: availability and gates, scores by arm, what the texts are about, samples."""
        return {
            "available": self.abc.passed,
            "split": self.split,
            "context_length": len(self.arms.questions[0].context),
            "windows": len(self.arms.questions),
            "documents": len(np.unique(self.arms.docs)),
            "gates": [self.contract.as_json(), self.abc.as_json()],
            "arms": self.arms.scores(),
            "about": {name: asdict(interval) for name, interval in self.arms.about().items()},
            "samples": self.arms.samples(),
        }


def decode_windows(
    dataset: Dataset,
    checkpoint: Checkpoint,
    decoder: Decoder,
    split: str = "test",
    context_length: int | None = None,
    limits: GateThresholds = GateThresholds(),
) -> DecodedWindows:
    """Decode 100 windows of `split`, or all there are, in every arm.

    The context is five chunks, or `context_length` (the model's own by default) where that is less.

    Raises `InputError` when dataset, model and decoder are not of one recipe, and `GateRefused` when
    `encoder_contract` fails. The gate `decoder_abc` refuses nothing here: it says in the summary
    whether the texts can be relied on.
    """
    checkpoint.config.recipe.require_same(dataset.manifest.recipe, f"dataset {dataset.path}")
    dataset = dataset.directed(checkpoint.config.train.reverse)
    contract = encoder_contract(dataset, decoder, limits)
    require([contract])
    length = min(CONTEXT, context_length or checkpoint.config.train.context_length)
    rows = _sample(dataset, checkpoint, split, length)
    questions = _questions(dataset, rows, length)
    contexts, truth = _embed(questions, decoder)
    y_dec = _predict(checkpoint, contexts)
    device = checkpoint.model.mean.device
    # Train holds no test or validation document; the rest matters where windows are of 'all' documents.
    library = ChunkLibrary(dataset, "train", device)
    own = dataset.row_doc[library.rows] == dataset.row_doc[rows][:, None]
    same = dataset.text_codes[library.rows] == dataset.text_codes[rows][:, None]
    nearest = library.nearest(y_dec, own | same)
    real = decoder.encoder.encode([chunk.text for chunk in nearest])
    decoded = decode_arms(decoder, truth, y_dec, real, encoder_norm(checkpoint.model))
    arms = Arms(questions, dataset.row_doc[rows], nearest, decoded, {})
    arms.cosine.update(cosines(decoder, {name: arms.texts(name) for name in (*decoded, *WRITTEN)}, truth))
    return DecodedWindows(split, arms, contract, decoder_abc(arms, limits))


def _sample(dataset: Dataset, checkpoint: Checkpoint, split: str, length: int) -> np.ndarray:
    """int64 [<= 100]: rows of the targets, a fixed sample of those that are scored."""
    windows = make_windows(dataset, split, length, checkpoint.config.train.eval_windows, checkpoint.model.mean.device)
    targets = windows.targets
    return np.sort(np.random.default_rng(0).choice(targets, min(WINDOWS, len(targets)), replace=False))


def _questions(dataset: Dataset, rows: np.ndarray, length: int) -> list[Question]:
    n_tokens = dataset.table.column("n_tokens").take(rows).to_pylist()
    out = []
    for row, n in zip(rows, n_tokens, strict=True):
        *context, truth = dataset.texts(np.arange(row - length, row + 1))
        out.append(Question(dataset.doc_ids[dataset.row_doc[row]], int(dataset.chunk_index[row]), context, truth, n))
    return out


def _embed(questions: list[Question], decoder: Decoder) -> tuple[np.ndarray, np.ndarray]:
    """Contexts [N, T, D] and true next chunks [N, D], embedded from their texts."""
    vectors = decoder.encoder.encode([text for question in questions for text in (*question.context, question.truth)])
    vectors = vectors.reshape(len(questions), -1, vectors.shape[1])
    return vectors[:, :-1], vectors[:, -1]


@torch.inference_mode()
def _predict(checkpoint: Checkpoint, contexts_NTD: np.ndarray) -> np.ndarray:
    """y_dec [N, D]."""
    y_dec, _ = checkpoint.model(torch.from_numpy(contexts_NTD).to(checkpoint.model.mean.device), return_both=True)
    return y_dec.cpu().numpy()
