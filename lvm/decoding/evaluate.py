"""The whole pipeline on windows of a dataset: texts -> encoder -> context -> model -> y_dec -> text.

Nothing stored is trusted on the way: contexts and true next chunks are embedded again from their
texts by the decoder's own encoder, after the gate `encoder_contract` has held it against the store.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.windows import make_windows
from lvm.decoding.arms import WRITTEN, Arms, Question, cosines, decode_arms, decoded_scores, encoder_norm
from lvm.decoding.gates import decoder_abc, encoder_contract
from lvm.decoding.neighbours import ChunkLibrary
from lvm.decoding.protocol import Decoded, Decoder
from lvm.decoding.text_metrics import length_buckets
from lvm.errors import InputError
from lvm.gates.result import GateResult, require
from lvm.models.checkpoint import Checkpoint

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


TEXTS = 256


FIRST, CORRECTED = "first", "corrected"


@dataclass(frozen=True)
class Ceiling:
    """Real texts, and what came back of their vectors."""

    split: str
    questions: list[Question]
    """The texts, without contexts."""

    decoded: dict[str, Sequence[Decoded]]
    """By search: the first hypotheses, and the texts after the decoder's own number of corrections."""

    @property
    def roundtrip(self) -> float:
        """Mean round-trip cosine after corrections."""
        return float(np.mean([found.roundtrip_cosine for found in self.decoded[CORRECTED]]))

    def summary(self) -> dict[str, Any]:
        """As JSON values: scores of both searches, over all texts and by length in the encoder's tokens, and every text."""
        truth = [question.truth for question in self.questions]
        buckets = length_buckets(np.array([question.n_tokens for question in self.questions]))
        scores = {}
        for search, found in self.decoded.items():
            lengths = {name: decoded_scores([found[i] for i in rows], [truth[i] for i in rows]) for name, rows in buckets.items()}
            scores[search] = {**decoded_scores(found, truth), "by_length": lengths}
        first, corrected = self.decoded[FIRST], self.decoded[CORRECTED]
        samples = [
            {
                "doc_id": question.doc_id,
                "chunk_index": question.chunk_index,
                "n_tokens": question.n_tokens,
                "truth": question.truth,
                FIRST: first[i].text,
                CORRECTED: corrected[i].text,
                "roundtrip_cosine": corrected[i].roundtrip_cosine,
            }
            for i, question in enumerate(self.questions)
        ]
        documents = len({question.doc_id for question in self.questions})
        return {"split": self.split, "texts": len(truth), "documents": documents, "scores": scores, "samples": samples}


def evaluate_ceiling(dataset: Dataset, first: Decoder, corrected: Decoder, split: str = "val") -> Ceiling:
    """Embed 256 texts of `split`, or all there are, with the decoder's own encoder, and decode their vectors.

    `first` is the decoder without corrections, `corrected` the same with them. Raises `InputError`
    when the recipes differ or the split is empty.
    """
    first.recipe.require_same(dataset.manifest.recipe, f"dataset {dataset.path}")
    rows = dataset.rows(split)
    if not len(rows):
        raise InputError(f"split '{split}' of dataset {dataset.path} is empty: give more documents (ten or more)")
    rows = np.sort(np.random.default_rng(0).choice(rows, min(TEXTS, len(rows)), replace=False))
    n_tokens = dataset.table.column("n_tokens").take(rows).to_pylist()
    questions = [
        Question(dataset.doc_ids[dataset.row_doc[row]], int(dataset.chunk_index[row]), [], text, n)
        for row, text, n in zip(rows, dataset.texts(rows), n_tokens, strict=True)
    ]
    vectors = first.encoder.encode([question.truth for question in questions])
    return Ceiling(split, questions, {FIRST: first.decode(vectors), CORRECTED: corrected.decode(vectors)})
